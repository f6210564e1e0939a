package record_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

// A Close that fails names records, as the application counts them, and no bytes of frames. What was not used has nothing to lose.
func TestAFailedCloseNamesTheRecords(t *testing.T) {
	ends := map[string]func(*record.Stream, *session.Session) error{
		"Stream.Close":  func(s *record.Stream, _ *session.Session) error { return s.Close() },
		"Session.Close": func(_ *record.Stream, s *session.Session) error { return s.Close() },
	}
	uses := map[string]struct {
		use  func(t *testing.T, s *record.Stream)
		want string
	}{
		"nothing": {func(*testing.T, *record.Stream) {}, ""},
		"a record": {func(t *testing.T, s *record.Stream) {
			_, err := s.WriteRecord(t.Context(), make([]byte, 1000))
			require.NoError(t, err)
		}, `close "log": records 1 to 1 are not known to have arrived: `},
		"records": {func(t *testing.T, s *record.Stream) {
			_, err := s.WriteBatch(t.Context(), [][]byte{nil, {1}, {2}})
			require.NoError(t, err)
		}, `close "log": records 1 to 3 are not known to have arrived: `},
		"an acknowledgement": {func(t *testing.T, s *record.Stream) {
			r, err := s.ReadRecord(t.Context())
			require.NoError(t, err)
			require.NoError(t, s.AckRecord(r.Seq))
		}, `close "log": the last acknowledgement is not known to have arrived: `},
	}
	for use, v := range uses {
		for name, end := range ends {
			t.Run(use+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: time.Millisecond})
					over := make(chan struct{})
					defer close(over)
					record.Handle(p.ToBob, "log", nil, func(s *record.Stream) {
						_, _ = s.WriteRecord(t.Context(), []byte("from bob"))
						<-over
					})
					s, err := record.Open(t.Context(), p.Alice, "log", nil)
					require.NoError(t, err)
					time.Sleep(time.Second)
					p.Freeze()
					v.use(t, s)
					err = end(s, p.Alice)
					p.Alice.Abort()
					p.Bob.Abort()
					if v.want == "" {
						require.NoError(t, err)
						return
					}
					require.ErrorContains(t, err, v.want)
					require.NotContains(t, err.Error(), "bytes")
					require.NotContains(t, err.Error(), "\n", "once")
				})
			})
		}
	}
}
