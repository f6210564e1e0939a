package peerlane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/pause"
	"github.com/peerlane/peerlane/session"
)

// openSlot is openRemote for conns that are opened and closed all the time, such as those of an http.Transport. Where either side's limit
// is reached, it does not fail: it waits until a conn of this host ends, or until ctx ends.
func (d *Dialer) openSlot(
	ctx context.Context, pid peer.ID, port uint16, tags []protocol.ID,
) (*Conn, protocol.ID, error) {
	var refused error
	var alone time.Time // since when dials have been refused though this host holds no slot
	key := slotKey{from: d.Host.Network(), to: pid, tag: tags[0]}
	for {
		own, err := dialSlots.take(ctx, key, refused != nil, hostDone(d.Host))
		if errors.Is(err, errHostDone) {
			return nil, "", d.dialError(pid, dialFailed(ctx, "negotiate", hostClosed("negotiate", nil)))
		}
		if err != nil {
			return nil, "", d.noSlot(pid, tags[0], err, refused)
		}
		c, tag, err := d.openRemote(ctx, pid, port, tags)
		if err == nil {
			failed := c.occupy(ctx, own)
			if failed == nil {
				return c, tag, nil
			}
			err = d.dialError(pid, failed)
		}
		if !isFull(err) {
			others, doubtful := own.isDoubtful()
			own.release()
			switch {
			case ctx.Err() == nil:
			case refused != nil:
				err = d.noSlot(pid, tags[0], ctx.Err(), refused)
			case doubtful: // its turn came when its time was nearly over
				err = d.noSlot(pid, tags[0], noneEnded(ctx, others), nil)
			}
			return nil, "", err
		}
		refused = err
		if !own.refuse() {
			alone = time.Time{}
			continue
		}
		if alone.IsZero() {
			alone = time.Now()
		}
		if time.Since(alone) > aloneTime || pause.For(ctx, slotWait) != nil {
			return nil, "", refused
		}
	}
}

// isFull reports whether a dial failed because a resource manager allows no further stream.
func isFull(err error) bool {
	typed, ok := errors.AsType[*Error](err)
	if !ok || typed.Op == "connect" {
		return false
	}
	var se *network.StreamError
	return errors.Is(err, network.ErrResourceLimitExceeded) ||
		errors.As(err, &se) && se.ErrorCode == network.StreamResourceLimitExceeded
}

// noSlot returns the error of a dial that has waited in vain, with the peer's refusal if there was one.
func (d *Dialer) noSlot(pid peer.ID, tag protocol.ID, wait, refused error) error {
	out := &Error{Op: "negotiate", Link: string(tag), Code: codes.Unavailable, Outcome: session.NotSent}
	if typed, ok := errors.AsType[*Error](refused); ok {
		*out = *typed
		out.Err = fmt.Errorf("%w; then waited: %w", typed.Err, wait)
	} else {
		out.Err = fmt.Errorf("waited for one of the peer's places for conns: %w; %s", wait, raiseHint)
	}
	return d.dialError(pid, out)
}

// occupy makes the conn hold a slot. A tentative slot must last a moment: occupy fails if the peer refuses the conn or ctx ends.
func (c *Conn) occupy(ctx context.Context, own *slot) *Error {
	c.slot, c.linger = own, lingerTime
	own.carry(c.under)
	if !own.tentative {
		return nil
	}
	if refused := c.lookForRefusal(ctx, own.look); refused != nil {
		refused.Link = string(c.tag)
		return refused
	}
	own.hold()
	return nil
}

// lookForRefusal waits for limit or the first byte, and returns the peer's refusal if one arrives. It leaves everything else to Read. No
// other goroutine has the conn yet.
func (c *Conn) lookForRefusal(ctx context.Context, limit time.Duration) *Error {
	if transportOf(c.under) == ma.ProtocolWithCode(ma.P_WEBRTC_DIRECT).Name {
		return nil // a read deadline in the middle of a message breaks its framing
	}
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end)/2)
	}
	_ = c.stream.SetReadDeadline(time.Now().Add(limit))
	stop := context.AfterFunc(ctx, func() { _ = c.stream.SetReadDeadline(deadline.Past) })
	first := make([]byte, 1)
	n, err := c.stream.Read(first)
	if !stop() {
		_ = c.stream.ResetWithError(resetCode(codes.Cancelled))
		return dialFailed(ctx, "negotiate", ctx.Err())
	}
	_ = c.stream.SetReadDeadline(time.Time{})
	c.ended = err == io.EOF
	switch {
	case n > 0:
		c.early = first
	case err != nil && err != io.EOF && !isTimeout(err):
		if failed := streamBroken("negotiate", err); isFull(failed) {
			_ = c.stream.ResetWithError(0) // releases this side's resources
			return dialFailed(ctx, "negotiate", failed)
		}
	}
	return nil
}
