package bulk

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// silently opens a lane whose peer reads nothing, writes n bytes to it once the peer is silent, and ends it. The opening crossed before.
func silently(t *testing.T, opts *Options, n int, end func(*Lane, *session.Session) error) (err error) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: time.Millisecond})
		over := make(chan struct{})
		defer close(over)
		Handle(p.ToBob, "lane", nil, func(*Lane) { <-over })
		l, openErr := Open(t.Context(), p.Alice, "lane", opts)
		require.NoError(t, openErr)
		time.Sleep(time.Second)
		p.Freeze()
		_, writeErr := l.Write(make([]byte, n))
		require.NoError(t, writeErr)
		err = end(l, p.Alice)
		p.Alice.Abort()
		p.Bob.Abort()
	})
	return err
}

// Hellos and the heads of blocks are no bytes of the user's, and compression makes them no fewer.
func TestAFailedCloseCountsTheBytesThatTheUserWrote(t *testing.T) {
	ends := map[string]func(*Lane, *session.Session) error{
		"Lane.Close":    func(l *Lane, _ *session.Session) error { return l.Close() },
		"Session.Close": func(_ *Lane, s *session.Session) error { return s.Close() },
	}
	for kind, opts := range kinds {
		for name, end := range ends {
			t.Run(kind+", "+name, func(t *testing.T) {
				require.NoError(t, silently(t, opts, 0, end), "there was nothing to lose")
				err := silently(t, opts, 1000, end)
				var e *session.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, session.Unknown, e.Outcome)
				require.Regexp(t, `^[^\n]*1000 bytes were written, and it is not known how many of them arrived[^\n]*$`, err.Error(), "one line")
				require.Equal(t, 1, strings.Count(err.Error(), " bytes "), "%v", err)
			})
		}
	}
}
