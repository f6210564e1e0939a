package session_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// waysToGo are the ways in which a peer is gone.
var waysToGo = map[string]func(p *peerlanetest.Sessions){
	"silent": func(p *peerlanetest.Sessions) {
		for _, l := range p.Links() {
			l.Freeze()
		}
	},
	"unreachable": (*peerlanetest.Sessions).Cut,
	"ended":       func(p *peerlanetest.Sessions) { p.Bob.Abort() },
}

// streams are the options of each kind of stream.
var streams = map[string]*session.StreamOptions{"shared": nil, "dedicated": {Dedicated: true}, "resumable": {Dedicated: true, Resumable: true}}

// eachEnd calls test with a stream of each kind, which the peer does not read and which has been prepared, once the peer is gone in each way.
func eachEnd(t *testing.T, prepare func(*session.Stream), test func(t *testing.T, kind string, st *session.Stream)) {
	for kind, opts := range streams {
		for way, leave := range waysToGo {
			t.Run(kind+", "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: time.Millisecond})
					over := make(chan struct{})
					defer close(over)
					p.ToBob.SetStream("x", func(*session.Stream) { <-over })
					st, err := p.Alice.OpenStream(t.Context(), "x", opts)
					require.NoError(t, err)
					time.Sleep(time.Second)
					p.OnLink(func(l *peerlanetest.Link) { l.Freeze() })
					for _, l := range p.Links() {
						l.Freeze() // what is written now does not arrive
					}
					prepare(st)
					leave(p)
					test(t, kind, st)
					p.Alice.Abort()
					p.Bob.Abort()
				})
			})
		}
	}
}

// A stream that nothing was written to has nothing to lose.
func TestCloseNamesNoStreamThatNothingWasWrittenTo(t *testing.T) {
	eachEnd(t, func(*session.Stream) {}, func(t *testing.T, _ string, st *session.Stream) {
		require.NoError(t, st.Session().Close())
	})
}

// An end is something to lose, too, where the session carries it.
func TestCloseNamesAStreamOfWhichOnlyTheEndIsLost(t *testing.T) {
	for _, end := range []func(*session.Stream) error{(*session.Stream).CloseWrite, (*session.Stream).Close} {
		eachEnd(t, func(st *session.Stream) {
			began := time.Now()
			require.NoError(t, end(st))
			require.Zero(t, time.Since(began))
		}, func(t *testing.T, kind string, st *session.Stream) {
			err := st.Session().Close()
			if kind == "dedicated" { // its own connection does
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, `stream "x" at bob: `)
			require.ErrorContains(t, err, "nothing was written, and it is not known whether the end of the stream arrived")
		})
	}
}

func TestCloseSaysHowManyBytesWereWritten(t *testing.T) {
	write := func(st *session.Stream) {
		_ = st.SetWriteDeadline(time.Now().Add(time.Second))
		_, err := st.Write(make([]byte, 1000))
		require.NoError(t, err)
	}
	want := map[string]string{
		"shared":    "1000 bytes were written, and it is not known how many of them arrived",
		"dedicated": "the peer has read 0 of 1000 bytes", "resumable": "the peer is known to have 0 of 1000 bytes",
	}
	eachEnd(t, write, func(t *testing.T, kind string, st *session.Stream) {
		require.ErrorContains(t, st.Session().Close(), want[kind])
	})
	eachEnd(t, write, func(t *testing.T, kind string, st *session.Stream) {
		require.ErrorContains(t, st.Close(), want[kind])
		if err := st.Session().Close(); kind == "shared" {
			require.NoError(t, err, "the application has the error")
		}
	})
}

// What a lane writes for itself is nothing that its user could lose.
func TestSetPayloadSaysWhichBytesAreTheUsers(t *testing.T) {
	for kind := range streams {
		for _, n := range []uint64{0, 700} {
			prepare := func(st *session.Stream) {
				st.ForLane().SetPayload(nil)
				st.ForLane().SetPayload(func() uint64 { return n })
				_, err := st.Write(make([]byte, 1000))
				require.NoError(t, err)
			}
			eachEnd(t, prepare, func(t *testing.T, of string, st *session.Stream) {
				err := st.Session().Close()
				switch {
				case of != kind:
				case n == 0:
					require.NoError(t, err)
				default:
					require.ErrorContains(t, err, "700 bytes were written, and it is not known how many of them arrived")
					require.NotContains(t, err.Error(), "1000")
				}
			})
		}
	}
}
