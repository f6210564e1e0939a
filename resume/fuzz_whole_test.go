package resume

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/mangle"
)

// segmentShape is what follows the hellos.
var segmentShape = &mangle.Shape{
	Head: 12, Max: 1<<24 - 1, Fields: [][2]int{{0, 1}, {4, 8}, {1, 3}, {11, 1}},
	Length: func(h []byte) int { return int(binary.BigEndian.Uint32(h) & 0xffffff) },
	Set:    func(h []byte, n int) { h[1], h[2], h[3] = byte(n>>16), byte(n>>8), byte(n) },
}

// FuzzWholeConn: whatever a peer makes of its part of a Conn, the other side neither panics nor hangs, keeps no more than its window,
// and ends with errors that its methods document. Two honest sides get every byte.
func FuzzWholeConn(f *testing.F) {
	for _, toDialer := range []bool{true, false} {
		f.Add(toDialer, []byte{})
		f.Add(toDialer, []byte{0, 1, 14, 0, 2, 14})
		f.Add(toDialer, []byte{0, 2, 5, 1, 1, 0, 1, 6, 1, 14})
		f.Add(toDialer, []byte{2, 4, 0, 12, 3, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 'a', 'b', 'c'})
	}
	f.Fuzz(func(t *testing.T, toDialer bool, script []byte) {
		if len(script) > 1<<10 {
			return
		}
		synctest.Test(t, func(t *testing.T) { wholeConn(t, toDialer, script) })
	})
}

// A goBetween is the network of a Conn, in which one side is made hostile to the other.
type goBetween struct {
	listener *Listener
	served   chan *Conn
	toDialer bool
	script   *mangle.Script
	running  sync.WaitGroup

	mu    sync.Mutex
	links []*faultnet.Link
}

// most is how many carriers there are.
const most = 40

// dial opens a carrier.
func (g *goBetween) dial(context.Context) (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.links) >= 2*most {
		return nil, errRefused
	}
	near, far := faultnet.NewLink(faultnet.LinkOptions{}), faultnet.NewLink(faultnet.LinkOptions{})
	isFirst := len(g.links) == 0
	g.links = append(g.links, near, far)
	dialing, here := near.Ends()
	there, accepting := far.Ends()
	g.running.Go(func() {
		if c, _ := g.listener.Serve(accepting); c != nil { // the dialing side has the error
			g.served <- c
		}
	})
	g.running.Go(func() { g.carry(there, here, !g.toDialer, isFirst) })
	g.running.Go(func() { g.carry(here, there, g.toDialer, isFirst) })
	return dialing, nil
}

// carry copies one direction of a carrier, whose first hello stays as it is.
func (g *goBetween) carry(to, from *faultnet.Conn, hostile, isFirst bool) {
	defer func() { _ = to.CloseWrite() }()
	if !hostile {
		_, _ = io.Copy(to, from)
		return
	}
	hello := make([]byte, helloSize)
	if n, err := io.ReadFull(from, hello); err != nil {
		_, _ = to.Write(hello[:n])
		return
	}
	for unit := hello; ; {
		r := mangle.Result{Units: [][]byte{unit}}
		if !isFirst {
			r = g.script.Next(unit)
		}
		isFirst = false
		time.Sleep(time.Duration(r.Pause) * 10 * time.Millisecond)
		for _, u := range r.Units {
			if _, err := to.Write(u); err != nil {
				return
			}
		}
		if r.Cut {
			to.Link().Cut()
			from.Link().Cut()
			return
		}
		var err error
		if unit, err = segmentShape.Read(from); err != nil {
			return
		}
	}
}

// end ends the network, and the Conns that nobody has.
func (g *goBetween) end(t *testing.T) {
	require.NoError(t, g.listener.Close())
	for _, link := range g.links {
		link.Cut()
	}
	g.running.Wait()
	for len(g.served) > 0 {
		c := <-g.served
		_ = c.Close() // that nothing is lost is nobody's concern
		<-c.Done()
	}
}

// wholeConn makes one Conn. toDialer says that the side that accepts it is the hostile one.
func wholeConn(t *testing.T, toDialer bool, script []byte) {
	opts := &Options{Window: minWindow, ResumeWindow: 10 * time.Second, CloseTimeout: 2 * time.Second, HandshakeTimeout: time.Second,
		Heartbeat: time.Second}
	l, err := NewListener(nil, opts)
	require.NoError(t, err)
	g := &goBetween{listener: l, served: make(chan *Conn, most), toDialer: toDialer, script: mangle.New(script, segmentShape)}
	began := time.Now()
	a, err := Dial(g.dial, opts)
	if err != nil { // the first carrier was cut before its hello was read
		require.ErrorIs(t, err, syscall.ECONNRESET)
		g.end(t)
		return
	}
	b := <-g.served
	var work sync.WaitGroup
	var got [2]int
	for i, c := range []*Conn{a, b} {
		work.Go(func() { got[i] = useWhole(t, c) })
	}
	for range 20 {
		time.Sleep(100 * time.Millisecond)
		for _, c := range []*Conn{a, b} {
			c.flow.Lock()
			require.LessOrEqual(t, c.in.Len(), minWindow)
			c.flow.Unlock()
		}
	}
	work.Wait()
	<-a.Done()
	<-b.Done()
	require.Less(t, time.Since(began), 2*time.Minute, "it hangs")
	g.end(t)
	if len(script) == 0 {
		require.Equal(t, [2]int{wholeSize, wholeSize}, got)
	}
}

// wholeSize is how many bytes each side writes.
const wholeSize = 20_000

// useWhole writes and reads to the ends, and returns how much it has read.
func useWhole(t *testing.T, c *Conn) (got int) {
	documented(t, c.SetDeadline(time.Now().Add(15*time.Second)))
	var writing sync.WaitGroup
	writing.Go(func() {
		for range wholeSize / 1000 {
			if _, err := c.Write(make([]byte, 1000)); err != nil {
				documented(t, err)
				break
			}
		}
		documented(t, c.CloseWrite())
	})
	n, err := io.Copy(io.Discard, c)
	documented(t, err)
	writing.Wait()
	documented(t, c.Close())
	return int(n)
}

// documented asserts that an error is one that the Conn's methods document.
func documented(t *testing.T, err error) {
	t.Helper()
	assert.True(t, err == nil || slices.ContainsFunc([]error{
		ErrLost, ErrProtocol, net.ErrClosed, syscall.EPIPE, os.ErrDeadlineExceeded,
	}, func(target error) bool { return errors.Is(err, target) }), "%v", err)
}
