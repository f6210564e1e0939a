package transfer

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// Names under which the control stream and the data lanes are opened (spec 1.2).
const (
	controlName = "transfer"
	dataName    = "transfer-data"
)

// From about this round trip on, the window limits a stream over TCP, and several lanes have several windows.
const lanesFrom = 20 * time.Millisecond

// lanesFor returns how many data lanes are worthwhile, at most the given number.
func lanesFor(s *session.Session, most int) int {
	if s.RTT() < lanesFrom {
		return 1
	}
	if conn := s.Conn(); conn != nil && strings.Contains(fmt.Sprint(conn.RemoteAddr()), "quic") {
		return 1 // all streams of the connection share a window that is large enough
	}
	return most
}

// Waits between attempts to open a lane.
const (
	firstLaneWait = 50 * time.Millisecond
	mostLaneWait  = 2 * time.Second
)

// A laneFunc serves a data lane until it ends. leave is closed when the lane is no longer on the best connection. The laneFunc must then
// end in an orderly way, at the next frame boundary, while another lane takes over. leave may be nil.
type laneFunc func(ctx context.Context, lane *bulk.Lane, leave <-chan struct{})

// keepLanes keeps n data lanes of the transfer id open until ctx ends, and calls run on each. It returns when all have ended.
func keepLanes(ctx context.Context, s *session.Session, id wire.ID, n int, o Options, run laneFunc) {
	var slots sync.WaitGroup
	for range n {
		slots.Go(func() { keepLane(ctx, s, id, o, run) })
	}
	slots.Wait()
}

// keepLane keeps one data lane open. A dedicated lane stays on the connection on which it was opened. When the session moves, for example
// from a relay to a direct connection, keepLane immediately opens another lane, while the old one ends in an orderly way. Over a limited
// relay the lane is shared: it moves with the session, however often the relay cuts the connection.
func keepLane(ctx context.Context, s *session.Session, id wire.ID, o Options, run laneFunc) {
	old := func() {} // aborts the replaced lane, and waits until it has ended
	var left <-chan struct{}
	defer func() {
		if left != nil {
			<-left
		}
	}()
	for wait := firstLaneWait; awaitAllowed(ctx, s, o); {
		began := time.Now()
		if lane, err := openLane(ctx, s, id, o); err == nil {
			leave, ended := make(chan struct{}), make(chan struct{})
			go func() { // ends with the lane, and keepLane waits for it
				defer close(ended)
				serveLane(ctx, lane, leave, run)
			}()
			if awaitStale(s, lane, ended) {
				close(leave)
				old() // so that there are never more than two
				left = ended
				old = func() {
					_ = lane.Abort(codes.Cancelled) // the receiver requests missing data again
					<-ended
				}
			}
		}
		if time.Since(began) > mostLaneWait {
			wait = firstLaneWait
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait = min(2*wait, mostLaneWait)
	}
}

// awaitAllowed waits until the session is on a connection that data may use. It returns false when ctx ends.
func awaitAllowed(ctx context.Context, s *session.Session, o Options) bool {
	for ctx.Err() == nil {
		changed := s.Changed()
		conn, ok := s.Conn().(interface{ Limited() bool })
		if o.AllowLimited || !ok || !conn.Limited() {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return false
}

// awaitStale returns true once a new lane would run on a better connection than this one, or false when this lane has ended.
func awaitStale(s *session.Session, lane *bulk.Lane, ended <-chan struct{}) bool {
	for {
		changed := s.Changed()
		if lane.Stale() {
			return true
		}
		select {
		case <-changed:
		case <-ended:
			return false
		}
	}
}

// openLane opens a data lane and sends the id of its transfer.
func openLane(ctx context.Context, s *session.Session, id wire.ID, o Options) (*bulk.Lane, error) {
	lane, err := bulk.Open(ctx, s, dataName, &bulk.Options{Mode: bulk.Dedicated, Compress: o.Compress, AllowLimited: o.AllowLimited})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = lane.Abort(codes.Cancelled) })
	defer stop()
	if _, err := lane.Write(wire.AppendLaneHello(nil, id)); err != nil {
		_ = lane.Abort(codes.Cancelled) // only the first error counts
		return nil, err
	}
	return lane, nil
}

// serveLane calls run on a lane. It aborts the lane when ctx ends.
func serveLane(ctx context.Context, lane *bulk.Lane, leave <-chan struct{}, run laneFunc) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = lane.Abort(codes.Cancelled) })
	defer stop()
	run(ctx, lane, leave)
	_ = lane.Abort(codes.Cancelled) // a sender has already closed the lane; a receiver has sent nothing, and requests missing data again
}

// onClose calls do in a goroutine once leave is closed, unless stop is called first. stop waits for the goroutine. leave may be nil.
func onClose(leave <-chan struct{}, do func()) (stop func()) {
	if leave == nil {
		return func() {}
	}
	stopped, done := make(chan struct{}), make(chan struct{})
	go func() { // ends after do or stop
		defer close(done)
		select {
		case <-leave:
			do()
		case <-stopped:
		}
	}()
	return func() {
		close(stopped)
		<-done
	}
}

// newLimiter returns a rate limiter, or nil for no limit. Its burst covers the lateness of timers (5 ms), and at least one piece.
func newLimiter(bytesPerSecond int) *rate.Limiter {
	if bytesPerSecond == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), max(256<<10, bytesPerSecond/200))
}

// slice returns how many bytes to send or receive at a time, so that at least one slice moves every 250 ms.
func slice(bytesPerSecond int) int {
	if bytesPerSecond == 0 {
		return 64 << 10
	}
	return min(64<<10, max(1<<10, bytesPerSecond/4))
}

// pace waits until the limiter allows n bytes.
func pace(ctx context.Context, l *rate.Limiter, n int) error {
	if l == nil {
		return nil
	}
	for n > 0 {
		some := min(n, l.Burst())
		if err := l.WaitN(ctx, some); err != nil {
			return err
		}
		n -= some
	}
	return nil
}
