package peerlane

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/peerlane/peerlane/internal/alive"
)

// Conns share the connection under them and its send queue: bytes of one conn delay the others. So traffic on one conn is a sign of life of
// the connection, for all of them.

// traffic records the traffic of all our conns on one libp2p connection.
type traffic struct {
	made       time.Time
	moved      atomic.Int64  // when a Read last returned bytes, or a Write had to wait for room and got it, in nanoseconds after made
	unanswered atomic.Uint64 // bytes received on conns that are no carriers: nothing acknowledges them to the peer
	in, out    atomic.Int64  // bytes, of all our conns
	rtt        atomic.Int64  // the round trip, as last measured, in nanoseconds; 0: it was not
}

// traffics maps a connection to its traffic while a conn on it is in use. It is global to the process, because all users of a host share
// its connections.
var traffics = struct {
	sync.Mutex
	of map[network.Conn]weak.Pointer[traffic]
}{of: make(map[network.Conn]weak.Pointer[traffic])}

// trafficOn returns the traffic of c.
func trafficOn(c network.Conn) *traffic {
	traffics.Lock()
	defer traffics.Unlock()
	if t := traffics.of[c].Value(); t != nil {
		return t
	}
	t := &traffic{made: time.Now()}
	traffics.of[c] = weak.Make(t)
	runtime.AddCleanup(t, forgetTraffic, c)
	return t
}

// knownTraffic returns the traffic of c, or nil if no conn of ours is on it.
func knownTraffic(c network.Conn) *traffic {
	traffics.Lock()
	defer traffics.Unlock()
	return traffics.of[c].Value()
}

// used returns how many bytes have passed in the direction in which there were more.
func (t *traffic) used() int64 { return max(t.in.Load(), t.out.Load()) }

// move records that something has moved.
func (t *traffic) move(now time.Time) { t.moved.Store(int64(now.Sub(t.made))) }

// forgetTraffic forgets a connection without conns of ours.
func forgetTraffic(c network.Conn) {
	traffics.Lock()
	defer traffics.Unlock()
	if traffics.of[c].Value() == nil {
		delete(traffics.of, c)
	}
}

// roomWait is the least duration of a Write that had to wait for room, which means that earlier bytes have left.
const roomWait = 100 * time.Millisecond

// A slicer cuts written data into pieces that take about half a second, because a secure channel and a muxer show nothing of a piece before
// all of it has arrived.
type slicer struct {
	size    int
	written uint64
}

const (
	firstSlice = 16 << 10
	leastSlice = 4 << 10
	mostSlice  = 1 << 20
	sliceTime  = 500 * time.Millisecond
	blindSlice = 16 // at first a piece is at most this fraction of the bytes written: they may all be in a queue
)

// next returns the size of the next piece of n bytes.
func (s *slicer) next(n int) int {
	if s.size == 0 {
		s.size = firstSlice
	}
	return min(n, s.size)
}

// took records that a piece of n bytes took d.
func (s *slicer) took(n int, d time.Duration) {
	s.written += uint64(n)
	switch {
	case d > sliceTime:
		s.size = max(leastSlice, min(s.size, int(float64(n)*float64(sliceTime)/float64(d))))
	case d < sliceTime/4 && n >= s.size:
		s.size = max(s.size, int(min(uint64(2*s.size), s.written/blindSlice, mostSlice)))
	}
}

// errSilentConn is the cause when an attempt is given up because its connection is dead.
var errSilentConn = errors.New("the connection is silent")

// whileAlive returns a ctx that ends with errSilentConn as its cause once all of conns are dead: for the given wait none of our traffic has
// moved on any of them, and none has answered a ping. stop ends the watch, and reports whether conns were found dead.
func whileAlive(ctx context.Context, conns []network.Conn, wait time.Duration) (alive context.Context, stop func() bool) {
	alive, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() { // ends with alive, which stop ends
		defer close(done)
		for areAlive(alive, conns, wait) {
		}
		cancel(errSilentConn)
	}()
	return alive, func() bool {
		cancel(nil)
		<-done
		return errors.Is(context.Cause(alive), errSilentConn)
	}
}

// areAlive reports, after the wait, whether any of conns is alive. When ctx ends it returns false at once.
func areAlive(ctx context.Context, conns []network.Conn, wait time.Duration) bool {
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var pings sync.WaitGroup
	var answered atomic.Bool
	all := make([]*traffic, len(conns))
	before := make([]int64, len(conns))
	for i, c := range conns {
		all[i] = trafficOn(c)
		before[i] = all[i].moved.Load()
		pings.Go(func() {
			if alive.Ping(bounded, c) == nil {
				answered.Store(true)
			}
		})
	}
	<-bounded.Done()
	pings.Wait()
	if ctx.Err() != nil {
		return false
	}
	for i, t := range all {
		if t.moved.Load() != before[i] {
			return true
		}
	}
	return answered.Load()
}
