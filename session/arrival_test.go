package session

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
)

// A stream that its handler resets, while the opening is cut so that the peer has heard nothing of it, is opened and reset for the
// opener too, and the handler does not run again.
func TestAStreamThatIsOpenedAgainAfterItsEndIsTheSameOne(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{Delay: 10 * time.Millisecond})
		served := 0
		r.mux.SetStream("x", func(st *Stream) {
			served++
			r.cutStream() // ACCEPT is on its way
			time.Sleep(time.Millisecond)
			require.NoError(t, st.Reset(77))
		})
		st := r.openStream("x")
		_, err := st.Read(make([]byte, 1))
		e := asError(t, err, Unknown)
		require.True(t, e.Remote)
		require.EqualValues(t, 77, e.Code)
		require.Equal(t, 1, served)
		require.Len(t, r.carriers(frame.RoleStream), 2)
	})
}

// How streams have ended of which nothing was ever heard is kept for so many as there may be streams.
func TestStreamsThatNobodyTookUpAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{Config: Config{MaxStreams: 3}}, faultnet.LinkOptions{Delay: 10 * time.Millisecond})
		r.mux.SetDefaultStream(func(st *Stream) {
			r.block(true)
			r.cutStream()
			time.Sleep(time.Millisecond)
			require.NoError(t, st.Reset(77))
		})
		for i := range 20 {
			_, err := r.dialer.OpenStream(within(t, time.Second), fmt.Sprint(i), outlasting)
			require.Error(t, err)
			r.block(false)
		}
		r.accepted.mu.Lock()
		kept, unheard := len(r.accepted.dedicated.arrivals), len(r.accepted.dedicated.unheard)
		r.accepted.mu.Unlock()
		require.Equal(t, []int{3, 3}, []int{kept, unheard})
	})
}

// An opening of which the accepting side still waits for the rest, for it has not seen the cut, is given up for the next one.
func TestAnOpeningThatHangsGivesWayToTheNext(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{Config: Config{HandshakeTimeout: time.Hour}}, faultnet.LinkOptions{})
		at, err := r.accepted.arrive(1, nil)
		require.NoError(t, err)
		hangs := &codedEnd{of: &codedLink{}}
		hangs.Conn, _ = faultnet.Pipe(faultnet.LinkOptions{})
		hangs.of.link = hangs.Conn.(*faultnet.Conn).Link()
		at.raw = hangs
		go func() { // as answerNew does
			_, _ = hangs.Read(make([]byte, 1))
			r.accepted.opened(at, nil)
		}()
		began := time.Now()
		st := r.openStream("echo")
		require.Zero(t, time.Since(began))
		echoes(t, st, "on the carrier that lives")
		require.NoError(t, st.Close())
		_, err = r.accepted.arrive(2, nil)
		require.NoError(t, err)
		require.False(t, r.accepted.takeNumber(&Stream{}, 2), "a number is of one stream")
		require.True(t, r.accepted.takeNumber(&Stream{}, 3))
		_, err = r.accepted.arrive(3, nil)
		require.Equal(t, codes.Protocol, asError(t, err, Unknown).Code)
	})
}
