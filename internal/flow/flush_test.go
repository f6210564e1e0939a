package flow

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// How far written bytes have come: kept, handed to a carrier, acknowledged, and ended.
func TestAFlowKnowsHowFarItsBytesHaveCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newFlow(t, Config{}), newFlow(t, Config{})
		require.Nil(t, a.Carrier())
		require.Zero(t, a.Heard())
		a.Sign() // to no carrier
		a.AwaitSent()
		_, err := a.Write([]byte("hello"))
		require.NoError(t, err)
		require.Zero(t, a.Reached(), "there is no carrier")
		x, y := faultnet.Pipe(faultnet.LinkOptions{})
		require.NoError(t, a.Attach(x, 0, false))
		require.Equal(t, net.Conn(x), a.Carrier())
		a.AwaitSent()
		require.EqualValues(t, 5, a.Reached())
		require.Zero(t, a.Acked())
		require.NoError(t, b.Attach(y, 0, false))
		read := make(chan []byte, 1)
		go func() {
			p, err := io.ReadAll(flowConn{b})
			require.NoError(t, err)
			read <- p
		}()
		go func() { _, _ = io.Copy(io.Discard, flowConn{a}) }()
		require.NoError(t, a.AwaitAckedTo(5))
		require.EqualValues(t, 5, a.Acked())
		heard := a.Heard()
		require.NotZero(t, heard)
		b.Sign()
		synctest.Wait()
		require.Greater(t, a.Heard(), heard)
		require.NoError(t, a.CloseWrite())
		require.NoError(t, a.CloseWrite())
		require.Equal(t, "hello", string(<-read))
		_, err = a.Write([]byte("more"))
		require.ErrorIs(t, err, net.ErrClosed)
		a.Close(errRefused)
		require.ErrorIs(t, a.CloseWrite(), errRefused)
		require.ErrorIs(t, a.SetWriteDeadline(time.Now()), errRefused)
		require.ErrorIs(t, a.AwaitSettled(t.Context()), errRefused)
	})
}

// AwaitSettled waits until both directions have left the carrier before, or its ctx ends.
func TestAwaitSettledWaitsForTheEndOfAMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newFlow(t, Config{}), newFlow(t, Config{})
		for _, f := range []*Flow{a, b} {
			go func() { _, _ = io.Copy(io.Discard, flowConn{f}) }()
		}
		join := func(f *Flow, conn net.Conn, live bool) { require.NoError(t, f.Attach(conn, 0, live)) }
		x1, y1 := faultnet.Pipe(faultnet.LinkOptions{})
		join(a, x1, false)
		join(b, y1, false)
		require.NoError(t, a.AwaitSettled(t.Context()))
		x2, y2 := faultnet.Pipe(faultnet.LinkOptions{})
		join(a, x2, true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, a.AwaitSettled(ctx), context.DeadlineExceeded, "the other side is on the first")
		join(b, y2, true)
		require.NoError(t, a.AwaitSettled(t.Context()))
		require.Equal(t, net.Conn(x2), a.Carrier())
	})
}
