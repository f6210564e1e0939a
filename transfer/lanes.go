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

// The names under which the control stream and the data lanes are opened (spec 1.2).
const (
	controlName = "transfer"
	dataName    = "transfer-data"
)

// Over TCP, a stream's window is the bound from about this round trip on, and several lanes have several.
const lanesFrom = 20 * time.Millisecond

// lanesFor returns how many data lanes are worthwhile, at most most.
func lanesFor(s *session.Session, most int) int {
	if s.RTT() < lanesFrom {
		return 1
	}
	if conn := s.Conn(); conn != nil && strings.Contains(fmt.Sprint(conn.RemoteAddr()), "quic") {
		return 1 // its streams share a window that is large enough
	}
	return most
}

// Waits between attempts to open a lane.
const (
	firstLaneWait = 50 * time.Millisecond
	mostLaneWait  = 2 * time.Second
)

// keepLanes keeps n data lanes of the transfer id open, and runs run on each, until ctx ends. It returns when all have ended.
func keepLanes(ctx context.Context, s *session.Session, id wire.ID, n int, o Options, run func(context.Context, *bulk.Lane)) {
	var slots sync.WaitGroup
	for range n {
		slots.Go(func() { keepLane(ctx, s, id, o, run) })
	}
	slots.Wait()
}

func keepLane(ctx context.Context, s *session.Session, id wire.ID, o Options, run func(context.Context, *bulk.Lane)) {
	for wait := firstLaneWait; ctx.Err() == nil; {
		began := time.Now()
		if lane, err := openLane(ctx, s, id, o); err == nil {
			serveLane(ctx, lane, run)
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

// serveLane runs run on a lane. The end of ctx aborts the lane.
func serveLane(ctx context.Context, lane *bulk.Lane, run func(context.Context, *bulk.Lane)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = lane.Abort(codes.Cancelled) })
	defer stop()
	run(ctx, lane)
	_ = lane.Abort(codes.Cancelled) // a sender has closed it; a receiver has sent nothing, and requests missing data again
}

// newLimiter returns a rate limiter, or nil for no limit. Its burst is what a timer can miss (5 ms), but at least one piece.
func newLimiter(bytesPerSecond int) *rate.Limiter {
	if bytesPerSecond == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), max(256<<10, bytesPerSecond/200))
}

// slice returns how many bytes to send or receive at a time at a rate, so that some move every 250 ms.
func slice(bytesPerSecond int) int {
	if bytesPerSecond == 0 {
		return 64 << 10
	}
	return min(64<<10, max(1<<10, bytesPerSecond/4))
}

// pace waits until n bytes are allowed.
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
