package peerlane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/backoff"
	"github.com/peerlane/peerlane/session"
)

// A Client calls peers. Its calls to one peer and tag share one session. The first call opens the session, and later calls reuse it. A
// Client is safe for concurrent use.
type Client struct {
	cfg     ClientConfig
	mux     *session.Mux
	pool    *pool
	keepers keeperSet
}

// NewClient returns a client on h. A nil config means DefaultClientConfig; config is copied. The error matches ErrInvalid
// and names the field that is out of range.
func NewClient(h host.Host, config *ClientConfig) (*Client, error) {
	if h == nil {
		return nil, invalidf("host: nil")
	}
	if config == nil {
		config = DefaultClientConfig()
	}
	if err := config.Validate(); err != nil {
		return nil, err
	}
	c := &Client{cfg: config.withDefaults(), mux: session.NewMux()}
	c.pool = newPool(h, &c.cfg, c.mux)
	return c, nil
}

type idempotentKey struct{}

// WithIdempotent returns a ctx for Sends that may safely run more than once at the peer: Send then also retries a request that may have
// been sent. It is a context value because Send's signature is that of pointsub.
func WithIdempotent(ctx context.Context) context.Context {
	return context.WithValue(ctx, idempotentKey{}, true)
}

// Send calls tag at the peer with request and returns its response, which belongs to the caller. It connects if needed. It calls a peer
// that only knows pointsub v0.0.2 with that protocol, unless a pre-shared key is in use. ReadTimeout bounds all of it: connecting, the
// answer, the retries and the waits between them.
//
// Send retries up to MaxRetries times, and only if the request is known not to have reached the peer (outcome NotSent) or, under
// WithIdempotent, if that is not known (Unknown). A switch to a new session because the kept one was drained or lost before the request was
// sent is not a retry. Send does not retry an error that cannot improve: a peer that does not serve tag, an unsuitable key, a request over
// a size limit. All tries together wait for a connection as ConnectTimeout says.
//
// A peer that refuses a session and says when to come again (RetryAfter) is asked for none of tag before, up to ConnectTimeout, by any
// Send, Connect or Keep. Send waits, or fails at once when ReadTimeout or ctx's deadline comes first.
//
// The error is, or wraps, an *Error whose Outcome says what may have happened at the peer. It matches ctx's error when that ended,
// os.ErrDeadlineExceeded when ReadTimeout passed, ErrTooLarge, ErrNotServed, ErrUnavailable (see RetryAfter), ErrUnreachable, ErrRelayOnly,
// or ErrStopped after Close and on a host that has been closed. When the handler returned an error, the outcome is Delivered and Text is
// the handler's.
func (c *Client) Send(ctx context.Context, pid peer.ID, tag protocol.ID, request []byte) ([]byte, error) {
	if c.pool.ctx.Err() != nil {
		return nil, stopped("send", pid, tag)
	}
	if len(request) > c.cfg.MaxBlockSize {
		return nil, &Error{Op: "send", Peer: pid.String(), Link: string(tag), Code: codes.TooLarge, Outcome: session.NotSent,
			Text: fmt.Sprintf("%d bytes, at most %d", len(request), c.cfg.MaxBlockSize)}
	}
	began := time.Now()
	wait := c.cfg.newWait(c.cfg.MaxRetries + 1)
	kept, moved, err := c.pool.kept(pid, tag), false, error(nil)
	if kept.session != nil { // only the answer is left to wait for, and the session bounds that
		var response []byte
		if response, moved, err = c.callOver(ctx, kept, tag, request); err == nil {
			return response, nil
		}
	}
	bound, cancel := context.WithDeadline(ctx, began.Add(c.cfg.ReadTimeout))
	defer cancel()
	for tries := (retries{}); ; {
		if err != nil {
			if wait.isOver() {
				return nil, c.outOfTime(ctx, bound, pid, tag, err)
			}
			if err = c.beforeNext(bound, &tries, pid, tag, moved, err); err != nil {
				return nil, c.outOfTime(ctx, bound, pid, tag, err)
			}
		}
		var response []byte
		if response, moved, err = c.sendOnce(bound, pid, tag, request, wait); err == nil {
			return response, nil
		}
	}
}

// retries counts the retries of a Send so far.
type retries struct {
	moves   moves
	counted int // those counted against MaxRetries
}

// beforeNext waits until a Send that has failed with err may be tried again, or returns an error if it may not.
func (c *Client) beforeNext(ctx context.Context, r *retries, pid peer.ID, tag protocol.ID, moved bool, err error) error {
	if !c.retryable(ctx, err) {
		return err
	}
	wait, free, retried := time.Duration(0), false, false
	if moved {
		wait, free = r.moves.next(err, &c.cfg)
	}
	if !free {
		if r.counted >= c.cfg.MaxRetries {
			return err
		}
		wait = retryWait(c.cfg.RetryInterval, r.counted)
		r.counted++
		retried = true
	}
	if left := c.pool.refused.left(poolKey{pid, tag}); left > wait {
		if end, ok := ctx.Deadline(); ok && time.Until(end) < left {
			return err // which says when
		}
		wait = left
	}
	if retried {
		c.cfg.Hooks.ReportRetry(session.Retry{Op: "send", Peer: pid.String(), Tag: string(tag), Attempt: r.counted, Wait: wait, Err: err}, c.cfg.Logger)
	}
	if waitErr := c.pool.sleep(ctx, wait, pid, tag); waitErr != nil {
		return errors.Join(waitErr, err)
	}
	return nil
}

// outOfTime returns the error of a Send that has failed with err. If bound ended the Send and ctx did not, the error says so.
func (c *Client) outOfTime(ctx, bound context.Context, pid peer.ID, tag protocol.ID, err error) error {
	if bound.Err() == nil || ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	out := &Error{Op: "send", Peer: pid.String(), Link: string(tag), Outcome: session.NotSent,
		Err: fmt.Errorf("no answer in %v: %w: %w", c.cfg.ReadTimeout, os.ErrDeadlineExceeded, err)}
	if e, ok := errors.AsType[*Error](err); ok {
		out.Outcome = e.Outcome
	}
	return out
}

// moves counts how often a Send moved to another session because the session was drained or had ended before the request was sent, or
// because the connection proved dead. A move is no retry: it is the normal effect of MaxRequestsPerConn, idle timeouts and a peer's
// restart.
type moves struct {
	n     int
	until time.Time // when moves stop being free
}

// moveInterval is the wait before the second move in a row. It doubles with each further move, as for retries.
const moveInterval = 10 * time.Millisecond

// next returns the wait before the next move, and whether the move is free. The first move is free. While the peer drains its sessions in
// order, every move is free for at most ReadTimeout. The wait after a broken connection gives libp2p time to notice, because otherwise
// libp2p would return the same connection again.
func (m *moves) next(err error, c *ClientConfig) (wait time.Duration, free bool) {
	now := time.Now()
	if m.n == 0 {
		m.until = now.Add(c.ReadTimeout)
	}
	drained := errors.Is(err, ErrGoingAway) || errors.Is(err, session.ErrClosed) // ErrClosed when the drain was already complete
	if m.n > 0 || !drained {
		wait = retryWait(min(moveInterval, c.RetryInterval), max(m.n-1, 0))
	}
	m.n++
	return wait, m.n == 1 || drained && now.Before(m.until)
}

// sendOnce tries once. moved reports that the session accepts no more calls, did not begin with this call, and did not end by a timeout, or
// that the connection closed while a session was being opened on it.
func (c *Client) sendOnce(ctx context.Context, pid peer.ID, tag protocol.ID, request []byte, w *wait) (response []byte, moved bool,
	err error) {
	link, err := c.pool.get(ctx, pid, tag, w)
	if err != nil {
		return nil, closedUnderDial(err), err
	}
	return c.callOver(ctx, link, tag, request)
}

// callOver calls tag over link. moved has the meaning it has in sendOnce.
func (c *Client) callOver(ctx context.Context, link link, tag protocol.ID, request []byte) (response []byte, moved bool, err error) {
	if link.session != nil {
		response, err = link.session.Call(ctx, "", request)
		c.pool.trim()
	} else {
		response, err = c.pool.callLegacy(ctx, link, request)
	}
	if e, ok := errors.AsType[*Error](err); ok {
		e.Op, e.Link = "send", string(tag)
		moved = e.Outcome == session.NotSent && link.session != nil && link.session.Draining() && !e.Timeout()
	}
	return response, moved, err
}

// retryable reports whether a Send that ended with err may be tried again.
func (c *Client) retryable(ctx context.Context, err error) bool {
	var e *Error
	if ctx.Err() != nil || !errors.As(err, &e) {
		return false
	}
	for _, permanent := range []error{ErrStopped, ErrNotServed, ErrInvalid, ErrTooLarge, ErrRelayOnly, ErrNotAllowed, ErrLegacyPeer,
		ErrPSKRequired, ErrPSKMismatch, ErrPSKTampered, session.ErrVersion, session.ErrUnsupported} {
		if errors.Is(err, permanent) {
			return false
		}
	}
	switch e.Outcome {
	case session.NotSent:
		return true
	case session.Unknown:
		return ctx.Value(idempotentKey{}) != nil
	default:
		return closedUnderDial(err)
	}
}

// closedUnderDial reports whether err is the error of a dial whose connection the peer closed, which is no refusal.
func closedUnderDial(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Outcome == session.Rejected && errors.Is(err, io.ErrUnexpectedEOF)
}

// retryWait returns the wait before retry n, from 0: interval doubled n times, up to tenfold, shortened at random by up to a half.
func retryWait(interval time.Duration, n int) time.Duration {
	interval = min(interval, math.MaxInt64/10) // 29 years
	return backoff.Backoff{Min: interval, Max: 10 * interval}.Wait(n + 1)
}

// Connect opens a separate session to tag at the peer, for messages, calls and streams. The caller closes it, or Close does. Connect
// returns ErrModernPSKRequired unless UseModernPSKClient was called before or AdmitAll is set. Otherwise the errors are those of Send, with
// outcome NotSent, or Rejected for a tag that the peer does not serve, and nothing is retried. While a peer's RetryAfter lasts, as
// with Send, Connect returns that refusal, with the time left.
func (c *Client) Connect(ctx context.Context, pid peer.ID, tag protocol.ID) (*session.Session, error) {
	return c.connect(ctx, pid, tag, c.cfg.newWait(1))
}

// connect is Connect for a caller that waits for a connection as w allows.
func (c *Client) connect(ctx context.Context, pid peer.ID, tag protocol.ID, w *wait) (*session.Session, error) {
	if c.pool.ctx.Err() != nil {
		return nil, stopped("connect", pid, tag)
	}
	if c.pool.currentKeys() == nil && !c.cfg.AdmitAll {
		return nil, ErrModernPSKRequired
	}
	return c.pool.connect(ctx, pid, tag, w)
}

// SetLink sets the handler of messages that peers send back to the link name on this client's sessions. On those of Send it is used only
// if UseModernPSKClient was called before or AdmitAll is set; else the peer gets ErrNotAllowed, and so it is with streams. Nil unsets it.
// It panics if name is longer than 255 bytes.
func (c *Client) SetLink(name string, fn func(*session.Message)) { c.mux.SetLink(name, fn) }

// SetDefaultLink sets the handler of messages to links without a handler. Nil unsets it.
func (c *Client) SetDefaultLink(fn func(*session.Message)) { c.mux.SetDefaultLink(fn) }

// SetStream sets the handler of streams that peers open back under name on this client's sessions. Nil unsets it. It panics if name is
// longer than 255 bytes.
func (c *Client) SetStream(name string, fn func(*session.Stream)) { c.mux.SetStream(name, fn) }

// RegisterCodec registers k for the client's sessions. It returns an error if the codec is nil or its name is empty, longer than 255 bytes,
// or taken.
func (c *Client) RegisterCodec(k session.Codec) error { return c.mux.RegisterCodec(k) }

// Sessions returns the sessions that are open now: those of Send, Connect and Keep, draining ones included.
func (c *Client) Sessions() []*session.Session {
	return slices.DeleteFunc(c.pool.sessions(), func(s *session.Session) bool { return s.Err() != nil })
}

// GetConnectionsInfo returns the currently open sessions.
func (c *Client) GetConnectionsInfo() []ConnectionInfo { return c.pool.info(time.Now()) }

// Close closes all keepers and sessions in order, side by side, as Session.Close does: calls in flight are waited for, and one-way
// messages are handled. It returns nil, or what Session.Close returns of each session of which something did not arrive. Later calls
// of Send, Connect and Keep return an error that matches ErrStopped, whatever their arguments; a second Close returns nil.
// A handler of the client's may call Close, which does not wait for it.
func (c *Client) Close() error {
	exemptCaller(c.pool.sessions())
	var wg sync.WaitGroup
	c.keepers.close(&wg) // first: that the pool closes their sessions is no event
	err := c.pool.close()
	wg.Wait()
	return err
}

// notServedBy turns the refusal of the session protocol into ErrLegacyPeer, with a code, if the peer serves the plain tag.
func notServedBy(h host.Host, key poolKey, code codes.Code, err error) error {
	if !errors.Is(err, ErrNotServed) {
		return err
	}
	if known, _ := h.Peerstore().SupportsProtocols(key.peer, key.tag); len(known) == 0 {
		return err
	}
	return &net.OpError{Op: "dial", Net: Network, Addr: Addr{Peer: key.peer}, Err: &Error{Op: "negotiate", Peer: key.peer.String(),
		Link: string(key.tag), Remote: true, Code: code, Outcome: session.NotSent, Err: ErrLegacyPeer}}
}
