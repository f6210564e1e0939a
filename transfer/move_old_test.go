package transfer_test

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// oldSender is a sender of before spec 4.6: it takes the end of the receiver's direction for the loss of the lane, and resets the lane.
type oldSender struct {
	data []byte // of the tree's only file

	mu     sync.Mutex
	pieces []wire.Want // each of one piece
	turn   int         // WANTs with the flag
	resets int
}

// next returns the next piece for a lane of a turn, and whether the lane is to go on; ok is false if there is none now.
func (o *oldSender) next(turn int) (w wire.Want, ok, goOn bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if turn != o.turn {
		return w, false, false
	}
	if len(o.pieces) == 0 {
		return w, false, true
	}
	w, o.pieces = o.pieces[0], o.pieces[1:]
	return w, true, true
}

// want takes a WANT.
func (o *oldSender) want(t *testing.T, f wire.Frame) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if f.Flag {
		o.pieces = nil
		o.turn++
	}
	wants, err := wire.ConsumeWants(nil, f.Body)
	require.NoError(t, err)
	for _, w := range wants {
		last := w.Piece + w.Pieces
		if w.Pieces == 0 {
			last = uint32((len(o.data) + piece - 1) / piece)
		}
		for i := w.Piece; i < last; i++ {
			o.pieces = append(o.pieces, wire.Want{File: w.File, Files: 1, Piece: i, Pieces: 1})
		}
	}
}

// lane serves a data lane.
func (o *oldSender) lane(l *bulk.Lane) {
	o.mu.Lock()
	turn := o.turn
	o.mu.Unlock()
	lost, read := make(chan struct{}), make(chan struct{})
	hello := make([]byte, wire.LaneHelloSize)
	for n := 0; n < len(hello); {
		some, err := l.Read(hello[n:])
		if n += some; err != nil {
			return
		}
	}
	go func() { // ends with the lane
		defer close(read)
		_, _ = l.Read(make([]byte, 1)) // a receiver sends nothing
		close(lost)
	}()
	for {
		select {
		case <-lost:
			o.mu.Lock()
			o.resets++
			o.mu.Unlock()
			_ = l.Abort(codes.Cancelled)
			<-read
			return
		default:
		}
		w, ok, goOn := o.next(turn)
		switch {
		case !goOn:
			_ = l.Close()
			<-read
			return
		case !ok:
			time.Sleep(time.Millisecond)
		default:
			from := int(w.Piece) * piece
			body := o.data[from:min(from+piece, len(o.data))]
			_, _ = l.Write(frame(header(wire.Data, w.File, w.Piece, 1), nil, body)) // what is lost is wanted again
		}
	}
}

// A receiver whose session moves asks its sender to end the lanes. One that does not know that resets them, and nothing is lost.
func TestATransferMovesAlsoWithASenderThatKnowsNothingOfIt(t *testing.T) {
	const size = 8 << 20
	from, to := write(t, content{"large": size}), t.TempDir()
	data, err := os.ReadFile(filepath.Join(from, "large"))
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		tree := hashedTree(t, from)
		var now atomic.Pointer[pathBytes]
		now.Store(new(pathBytes))
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{
			Delay: 10 * time.Millisecond, Rate: size / 8,
			Wrap: func(here, there net.Conn) (net.Conn, net.Conn) {
				on := now.Load()
				return &onPath{here, on}, &onPath{there, on}
			},
		})
		old := &oldSender{data: data}
		serveRogue(t, p, func(g *rogue) {
			g.expect(wire.KindGet)
			g.list(tree.Entries())
			for {
				f, err := g.in.Read()
				if err != nil {
					return
				}
				switch f.Kind {
				case wire.KindWantLayer:
					g.sendLayer(tree, wire.ConsumeFile(f.Body))
				case wire.KindWant:
					old.want(t, f)
				}
			}
		})
		bulk.Handle(p.ToBob, "transfer-data", nil, old.lane)
		moved := make(chan error, 1)
		go func() {
			for range 3 {
				time.Sleep(2 * time.Second)
				now.Store(new(pathBytes))
				if err := p.Alice.Reconnect(t.Context()); err != nil {
					moved <- err
					return
				}
			}
			moved <- nil
		}()
		ref := transfer.Ref{Root: listed(t, tree.Entries()).Root}
		o := &transfer.ReceiveOptions{Verify: transfer.VerifyAll}
		result, err := transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, ref, to, o).Wait()
		require.NoError(t, err)
		require.NoError(t, <-moved)
		require.Zero(t, result.Progress.Losses)
		require.Zero(t, result.Progress.Bad)
		old.mu.Lock()
		defer old.mu.Unlock()
		require.GreaterOrEqual(t, old.resets, 3)
	})
	same(t, from, filepath.Join(to, "tree"))
}
