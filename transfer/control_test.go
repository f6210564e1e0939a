package transfer

import (
	"context"
	"net"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// pipeStream is a stream of a net.Pipe, which knows no half close.
type pipeStream struct{ net.Conn }

func (pipeStream) CloseWrite() error        { return nil }
func (s pipeStream) Reset(codes.Code) error { return s.Close() }

func TestTheLastWordsAreWaitedForWhateverInterrupts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c, peer := newControl(pipeStream{ours}), wire.NewReader(theirs)
		c.interrupt(context.Canceled)
		over := make(chan struct{})
		go func() {
			defer close(over)
			c.abort(wire.Why{Code: string(CodeCanceled)})
		}()
		f, err := peer.Read()
		require.NoError(t, err)
		require.Equal(t, wire.KindAbort, f.Kind)
		synctest.Wait()
		c.interrupt(context.Canceled) // what has stopped it may say so several times
		synctest.Wait()
		select {
		case <-over:
			t.Fatal("the stream was closed before the peer had ended its side")
		default:
		}
		require.NoError(t, theirs.Close())
		<-over
	})
}
