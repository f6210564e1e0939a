package session

import (
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/resume"
)

// Row: N16. A reset ends the stream on the other side at once, with its code, and sends it nowhere to resume.
func TestAResetOfAResumableStreamTellsItsCode(t *testing.T) {
	for name, sealed := range map[string]bool{"plain": false, "sealed": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) { resetsTell(t, sealed) })
		})
	}
}

func resetsTell(t *testing.T, sealed bool) {
	here, there := Config{}, AcceptorConfig{}
	if sealed {
		here.Keys, there.Keys = keyring(t, 0), keyring(t, 0)
	}
	r := newStreamRoad(t, here, there, faultnet.LinkOptions{Delay: time.Millisecond})
	got := make(chan error, 1)
	r.mux.SetStream("x", func(st *Stream) {
		_, err := st.Read(make([]byte, 1))
		got <- err
	})
	for _, code := range []codes.Code{codes.OK, codes.Closed, codes.Cancelled, codes.Unavailable, codes.GoingAway, 4711} {
		st := r.openStream("x")
		began := time.Now()
		require.NoError(t, st.Reset(code))
		require.NoError(t, st.Reset(code))
		want := code
		if code == codes.OK || code == codes.Closed {
			want = codes.Cancelled
		}
		e := asError(t, <-got, Unknown)
		require.True(t, e.Remote)
		require.Equal(t, want, e.Code)
		require.Equal(t, "x", e.Link)
		require.Less(t, time.Since(began), time.Second)
		_, err := st.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = st.Write(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
		require.ErrorIs(t, st.SetDeadline(time.Time{}), net.ErrClosed)
	}
	r.mux.SetStream("x", func(st *Stream) {
		_, _ = st.Read(make([]byte, 1))
		require.NoError(t, st.Reset(77))
	})
	r.mux.SetStream("panics", func(st *Stream) {
		_, _ = st.Read(make([]byte, 1))
		panic("boom")
	})
	for name, code := range map[string]codes.Code{"x": 77, "panics": codes.Internal} {
		st := r.openStream(name)
		began := time.Now()
		_, err := st.Write([]byte("x"))
		require.NoError(t, err)
		_, err = st.Read(make([]byte, 1))
		e := asError(t, err, Unknown)
		require.True(t, e.Remote)
		require.Equal(t, code, e.Code)
		_, err = st.Write(make([]byte, 1))
		require.Equal(t, code, asError(t, err, Unknown).Code)
		require.Less(t, time.Since(began), time.Second)
		require.NoError(t, st.Close())
	}
	links := len(r.coded)
	time.Sleep(2 * time.Minute)
	require.Len(t, r.coded, links, "nobody has tried to resume")
	wantZero(t, r.dialer)
	wantZero(t, r.accepted)
}

// A carrier that is reset by whoever, with any code but a last word, is lost, and the stream goes on.
func TestAResetOfACarrierIsNotAResetOfTheStream(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		st := r.openStream("echo")
		for code := codes.OK; code <= codes.ReplyTooLarge; code++ {
			if code == codes.Version || code == codes.PSKTampered {
				continue // only of a hello
			}
			for side := range 2 {
				all := r.carriers(frame.RoleStream)
				end := &codedEnd{Conn: nopConn{}, of: all[len(all)-1], side: side}
				require.NoError(t, end.Reset(code))
				echoes(t, st, fmt.Sprintf("%v of side %d", code, side))
			}
		}
		require.NoError(t, st.Close())
	})
}

// nopConn has nothing to close.
type nopConn struct{ net.Conn }

func (nopConn) Close() error { return nil }

// Who resets a stream that has no carrier cannot say so: the dialing side learns it when it resumes, the accepting side by its
// patience.
func TestAResetWithoutACarrierIsLearntLater(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		streams, results := make(chan *Stream, 1), make(chan error, 1)
		r.mux.SetStream("x", func(st *Stream) {
			streams <- st
			_, err := st.Read(make([]byte, 1))
			results <- err
		})
		st := r.openStream("x")
		r.block(true)
		r.cutStream()
		synctest.Wait()
		require.NoError(t, (<-streams).Reset(5))
		require.ErrorIs(t, <-results, net.ErrClosed)
		r.block(false)
		began := time.Now()
		_, err := st.Read(make([]byte, 1))
		require.ErrorIs(t, err, ErrSessionLost)
		require.ErrorIs(t, err, resume.ErrUnknown)
		require.Less(t, time.Since(began), 10*time.Second)
		require.NoError(t, st.Close())

		st = r.openStream("x")
		r.block(true)
		r.cutStream()
		synctest.Wait()
		require.NoError(t, st.Reset(5))
		began = time.Now()
		require.ErrorIs(t, <-results, ErrSessionLost)
		require.Equal(t, time.Minute, time.Since(began))
		r.block(false)
		require.Nil(t, r.dialer.Err(), "the session goes on")
		wantZero(t, r.dialer)
		wantZero(t, r.accepted)
	})
}

// A stream that finds no carrier within the window is lost, on both sides, and the session is not.
func TestAResumableStreamIsLostAfterTheWindow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{ResumeWindow: 20 * time.Second}, AcceptorConfig{}, faultnet.LinkOptions{})
		lost := make(chan error, 1)
		r.mux.SetStream("x", func(st *Stream) {
			_, err := st.Read(make([]byte, 1))
			lost <- err
		})
		st := r.openStream("x")
		r.block(true)
		began := time.Now()
		r.cutStream()
		_, err := st.Read(make([]byte, 1))
		require.Equal(t, 20*time.Second, time.Since(began))
		e := asError(t, err, Unknown)
		require.ErrorIs(t, err, ErrSessionLost)
		require.ErrorIs(t, err, resume.ErrLost)
		require.Equal(t, "x", e.Link)
		require.ErrorIs(t, <-lost, ErrSessionLost)
		require.Equal(t, 20*time.Second, time.Since(began))
		_, err = st.Write([]byte("x"))
		require.ErrorIs(t, err, ErrSessionLost)
		require.Equal(t, StateConnected, r.dialer.State())
		wantZero(t, r.dialer)
		wantZero(t, r.accepted)
		require.NoError(t, st.Close())
		require.NoError(t, st.Close())
	})
}

// The end of the session, in whatever way, is the end of its streams, with its cause.
func TestTheEndOfTheSessionEndsAResumableStream(t *testing.T) {
	for name, test := range map[string]struct {
		end     func(r *streamRoad)
		here    error
		there   error
		inOrder bool
	}{
		"closed": {func(r *streamRoad) { _ = r.dialer.Close() }, ErrClosed, nil, true},
		"closed by the peer": {func(r *streamRoad) {
			_ = r.accepted.Close()
			<-r.dialer.Done()
		}, nil, ErrClosed, true},
		"lost": {func(r *streamRoad) {
			r.block(true)
			for _, c := range r.coded {
				c.link.Cut()
			}
			<-r.dialer.Done()
			<-r.accepted.Done()
		}, ErrSessionLost, ErrSessionLost, false},
		"lost while the stream had a carrier": {func(r *streamRoad) {
			r.block(true)
			r.link(0).Cut()
			<-r.dialer.Done()
			<-r.accepted.Done()
		}, nil, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
				results, serving := make(chan error, 2), make(chan struct{}, 1)
				r.mux.SetStream("x", func(st *Stream) {
					serving <- struct{}{}
					_, err := st.Read(make([]byte, 1))
					results <- err
				})
				st := r.openStream("x")
				<-serving
				began := time.Now()
				test.end(r)
				_, err := st.Read(make([]byte, 1))
				require.Error(t, err)
				var e *Error
				if test.inOrder && err == io.EOF { // the handler, which has read the end, has closed the stream
					if err = <-results; err != io.EOF {
						require.ErrorIs(t, err, ErrClosed)
					}
					return
				}
				require.ErrorAs(t, err, &e)
				if test.here != nil {
					require.ErrorIs(t, err, test.here)
				}
				err = <-results
				if test.inOrder && err == io.EOF {
					return
				}
				require.ErrorAs(t, err, &e)
				if test.there != nil {
					require.ErrorIs(t, err, test.there)
				}
				require.LessOrEqual(t, time.Since(began), 2*time.Minute)
				_, err = r.dialer.OpenStream(t.Context(), "x", outlasting)
				asError(t, err, NotSent)
				wantZero(t, r.dialer)
				wantZero(t, r.accepted)
			})
		})
	}
}

// The session's end in the middle of a stream's hello leaves nothing.
func TestTheEndOfTheSessionInTheMiddleOfAResumableHelloLeavesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		mute := r.rawStream(frame.ResumableNew)
		r.set(func() { r.prepare = func(_ int, l *faultnet.Link) { l.Freeze() } })
		result := make(chan error, 1)
		go func() {
			_, err := r.dialer.OpenStream(t.Context(), "echo", outlasting)
			result <- err
		}()
		synctest.Wait()
		began := time.Now()
		require.NoError(t, r.dialer.Close())
		require.Zero(t, time.Since(began))
		err := <-result
		require.ErrorIs(t, err, ErrClosed)
		asError(t, err, Unknown)
		<-r.accepted.Done()
		_, err = mute.Read(make([]byte, 1))
		require.Error(t, err)
		require.Zero(t, time.Since(began))
		r.link(-1).Cut()
		r.serving.Wait()
		wantZero(t, r.dialer)
		wantZero(t, r.accepted)
	})
}
