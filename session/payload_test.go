package session

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// waysToGo are the ways in which a peer is gone.
var waysToGo = map[string]func(r *road){
	"silent":      func(*road) {}, // as it is already
	"unreachable": func(r *road) { r.each((*faultnet.Link).Cut) },
	"ended":       func(r *road) { r.accepted.Abort() },
}

// streamKinds are the options of each kind of stream.
var streamKinds = map[string]*StreamOptions{"shared": nil, "dedicated": {Dedicated: true}, "resumable": {Dedicated: true, Resumable: true}}

// eachEnd calls test with a stream of each kind, which the peer does not read and which has been prepared, once the peer is gone in each way.
func eachEnd(t *testing.T, prepare func(*Stream), test func(t *testing.T, kind string, st *Stream)) {
	for kind, opts := range streamKinds {
		for way, leave := range waysToGo {
			t.Run(kind+", "+way, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{Delay: time.Millisecond})
					over := make(chan struct{})
					defer close(over)
					r.mux.SetStream("x", func(*Stream) { <-over })
					st, err := r.dialer.OpenStream(t.Context(), "x", opts)
					require.NoError(t, err)
					time.Sleep(time.Second)
					r.set(func() { r.prepare = func(_ int, l *faultnet.Link) { l.Freeze() } })
					r.each((*faultnet.Link).Freeze) // what is written now does not arrive
					prepare(st)
					leave(r)
					test(t, kind, st)
					r.dialer.Abort()
					r.accepted.Abort()
				})
			})
		}
	}
}

// A stream that nothing was written to has nothing to lose.
func TestCloseNamesNoStreamThatNothingWasWrittenTo(t *testing.T) {
	eachEnd(t, func(*Stream) {}, func(t *testing.T, _ string, st *Stream) {
		require.NoError(t, st.Session().Close())
	})
}

// An end is something to lose, too, where the session carries it.
func TestCloseNamesAStreamOfWhichOnlyTheEndIsLost(t *testing.T) {
	for _, end := range []func(*Stream) error{(*Stream).CloseWrite, (*Stream).Close} {
		eachEnd(t, func(st *Stream) {
			began := time.Now()
			require.NoError(t, end(st))
			require.Zero(t, time.Since(began))
		}, func(t *testing.T, kind string, st *Stream) {
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
	write := func(st *Stream) {
		_ = st.SetWriteDeadline(time.Now().Add(time.Second))
		_, err := st.Write(make([]byte, 1000))
		require.NoError(t, err)
	}
	want := map[string]string{
		"shared":    "1000 bytes were written, and it is not known how many of them arrived",
		"dedicated": "the peer has read 0 of 1000 bytes", "resumable": "the peer is known to have 0 of 1000 bytes",
	}
	eachEnd(t, write, func(t *testing.T, kind string, st *Stream) {
		require.ErrorContains(t, st.Session().Close(), want[kind])
	})
	eachEnd(t, write, func(t *testing.T, kind string, st *Stream) {
		require.ErrorContains(t, st.Close(), want[kind])
		if err := st.Session().Close(); kind == "shared" {
			require.NoError(t, err, "the application has the error")
		}
	})
}

// What a lane writes for itself is nothing that its user could lose.
func TestSetPayloadSaysWhichBytesAreTheUsers(t *testing.T) {
	for kind := range streamKinds {
		for _, n := range []uint64{0, 700} {
			prepare := func(st *Stream) {
				st.ForLane().SetPayload(nil)
				st.ForLane().SetPayload(func() uint64 { return n })
				_, err := st.Write(make([]byte, 1000))
				require.NoError(t, err)
			}
			eachEnd(t, prepare, func(t *testing.T, of string, st *Stream) {
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
