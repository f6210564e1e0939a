package peerlane

import (
	"context"
	"errors"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/pointsub"
	"github.com/peerlane/peerlane/session"
)

// maxLegacyCalls bounds the calls at once to one old peer and tag, each of which is a stream of its own: libp2p's default
// resource manager takes 64 and a few more.
const maxLegacyCalls = 48

// getLegacy opens a conn for one call to a peer that spoke pointsub's wire when it was last asked. A peer that has learnt
// sessions meanwhile is remembered as such.
func (p *pool) getLegacy(ctx context.Context, key poolKey, places chan struct{}, w *wait) (link, error) {
	timer := time.NewTimer(p.cfg.ReadTimeout)
	defer timer.Stop()
	select {
	case places <- struct{}{}:
	case <-timer.C:
		return link{}, &Error{Op: "send", Peer: key.peer.String(), Link: string(key.tag), Code: codes.Timeout, Outcome: session.NotSent,
			Text: "too many calls to this old peer are in progress"}
	case <-p.ctx.Done():
		return link{}, stopped("send", key.peer, key.tag)
	case <-ctx.Done():
		return link{}, &Error{Op: "send", Peer: key.peer.String(), Link: string(key.tag), Outcome: session.NotSent, Err: ctx.Err()}
	}
	release := func() { <-places }
	bound, cancel := p.bound(ctx)
	defer cancel()
	short, done := w.begin(bound, p, key.peer)
	traced, t := withTrail(short)
	conn, tag, err := p.dialer.open(traced, key.peer, sessionTag(key.tag), key.tag)
	if err != nil && short.Err() != nil && bound.Err() == nil {
		err = p.noConnection(key, t)
	}
	err = p.carry(key, t, err)
	done()
	if err != nil {
		release()
		return link{}, p.because(ctx, err, "send", key)
	}
	if tag == key.tag {
		return link{conn: conn, done: release}, nil
	}
	release()
	_ = conn.Close() // get opens the session
	p.mu.Lock()
	delete(p.old, key)
	p.mu.Unlock()
	return p.get(ctx, key.peer, key.tag, w)
}

// callLegacy makes one call to an old peer, and gives the link back.
func (p *pool) callLegacy(ctx context.Context, l link, request []byte) ([]byte, error) {
	defer l.done()
	bound, cancel := p.bound(ctx)
	defer cancel()
	passed := false
	response, err := legacyThrough(bound, p.mux, l.conn.RemotePeer(), l.conn.Tag(), false, request, func(ctx context.Context, value []byte) ([]byte, error) {
		passed = true
		return callLegacy(ctx, l.conn, value, p.cfg)
	})
	if !passed { // an interceptor has not let it pass
		l.conn.resetWith(codes.Cancelled)
	}
	if e, ok := errors.AsType[*Error](err); ok && ctx.Err() == nil && p.ctx.Err() != nil {
		e.Err = ErrStopped
	}
	return response, err
}

// callLegacy makes one call to an old peer on conn, and closes it.
func callLegacy(ctx context.Context, conn *Conn, request []byte, c *ClientConfig) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { conn.resetWith(codes.Cancelled) })
	defer stop()
	response, err := exchangeLegacy(conn, request, c)
	if err == nil {
		_ = conn.Close() // the answer is here
		return response, nil
	}
	conn.resetWith(codes.Cancelled)
	failed := &Error{Op: "send", Peer: conn.RemotePeer().String(), Link: string(conn.Tag()), Outcome: session.Unknown, Err: err}
	var e *Error
	switch {
	case ctx.Err() != nil:
		failed.Err = ctx.Err()
	case errors.As(err, &e) && e.Code == codes.TooLarge && !e.Remote: // the handler has run
		failed.Code, failed.Outcome, failed.Text, failed.Err = codes.ReplyTooLarge, session.Delivered, e.Text, nil
	}
	return nil, failed
}

// exchangeLegacy sends a request and reads the response, within ReadTimeout in total.
func exchangeLegacy(conn *Conn, request []byte, c *ClientConfig) ([]byte, error) {
	until := time.Now().Add(c.ReadTimeout)
	if err := pointsub.Write(conn, request, pointsub.Deadline{Set: conn.SetWriteDeadline, Each: c.WriteTimeout, Until: until}); err != nil {
		return nil, err
	}
	_ = conn.SetReadDeadline(until) // a closed conn fails in the read
	n, err := pointsub.ReadSize(conn, c.MaxBlockSize)
	if err != nil {
		return nil, err
	}
	return pointsub.ReadBody(conn, n, func(int) bool { return true })
}
