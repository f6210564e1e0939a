package transfer

import (
	"context"
	"net"
	"time"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/internal/lane"
)

// What a transfer holds for a peer that has opened the session is in the peer's share of memory: its manifest as long as the transfer runs,
// pieces that have come and are not written yet, pieces that are read ahead, and frames that it does not read. Without room for pieces, lanes
// wait.

// budgetsOf returns the bounds of what the peer of a control stream makes this side hold; see lane.Stream.
func budgetsOf(st net.Conn) (kept, arrived lane.Budget) {
	if st, ok := st.(interface{ ForLane() lane.Stream }); ok {
		return st.ForLane().Budgets()
	}
	return nil, nil
}

// keptBy returns an empty Held for what this side is to send to the peer of a control stream.
func keptBy(st net.Conn) lane.Held {
	kept, _ := budgetsOf(st)
	return lane.In(kept)
}

var errNoMemory = &Error{Code: CodeBusy, Text: "no memory for more of this peer's transfers: try again later"}

// awaitRoom calls take until that returns true, and waits between two calls. The error is why ctx or end have ended.
func awaitRoom(ctx, end context.Context, take func() bool) error {
	var retry lane.Retry
	for !take() {
		select {
		case <-time.After(retry.Next()):
		case <-ctx.Done():
			return ctx.Err()
		case <-end.Done():
			return context.Cause(end)
		}
	}
	return nil
}

// entryFactor is how many times the bytes of an entry on the wire it takes in memory, at most: a path of one byte is 29 bytes on the wire.
const entryFactor = 8

// pooledPiece is the size of the pooled buffers of a receiver.
const pooledPiece = b3tree.MinPieceSize + 64<<10

// claim counts the delivery's memory for n bytes in a budget until it is freed, and reports false if there is no room for it.
func (d *delivery) claim(in lane.Budget, n int) bool {
	n = max(n, pooledPiece)
	if in == nil {
		return true
	}
	if !in.Take(n) {
		return false
	}
	d.in, d.held = in, n
	return true
}

// release ends a claim.
func (d *delivery) release() {
	if d.in != nil {
		d.in.Give(d.held)
		d.in = nil
	}
}

// queueStep is how much of a control's queue is taken from the budget at a time. A queue shorter than that counts nothing.
const queueStep = 64 << 10

// holdLocked counts a queue with n bytes, and the one that is being written, and reports false if there is no room for that.
func (c *control) holdLocked(n int) bool {
	if n < queueStep {
		return true
	}
	return c.held.AtLeast(2 * (n + queueStep))
}
