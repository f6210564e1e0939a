package session

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/handler"
	"github.com/peerlane/peerlane/internal/hook"
)

// Hooks are functions of the application that sessions call when something happens. All may be nil, and cost nothing then. Sessions may share
// Hooks, and share its workers with it: a Client's do, and a Server's. Hooks must not be copied or changed once they are in use.
//
// The hooks of one session are called one at a time, in the order of the events: OnOpen is first, and OnClose last. They run on at most
// Workers goroutines in all, so that a slow hook delays the hooks of its own session, and others only when as many sessions as there are
// Workers have one. Of OnOpen, there is one goroutine for each session that is being opened, and OnMessage runs in the goroutine of the
// message's handler. Up to 1024 calls of a session wait for their turn, or 16 while 65536 of all sessions wait. Beyond that, calls are dropped
// and counted in Snapshot.HooksDropped, but never those of OnMessage, OnError and OnClose. A session of the peer keeps its place in the Quota
// until all its hooks have returned: slow ones make the peers wait that come and go.
//
// A hook may call all methods of the session, and close the session, the client or the server: they do not wait for hooks. While a hook waits
// for such a Close, OnMessage is called beside it. A hook that panics or ends its goroutine ends nothing but itself, and is logged; OnOpen
// refuses the session then, and OnMessage that ends its goroutine ends the handling of its message.
type Hooks struct {
	// OnOpen is called with each new session, before anything that the peer sends on it is handed to a handler. An error refuses the
	// session: it ends, and the peer's session ends with an *Error that has Remote, the error's Code and its Text. The Code is
	// codes.NotAllowed if the error is no *Error, and in place of codes.GoingAway and codes.Closed, which are of ends in order. No other hook
	// is called for a refused session. On the dialing side, Dial returns the error.
	OnOpen func(*Session) error
	// OnMessage is called with each call and message of the peer that a handler is about to get, in the order of the handlers' beginning. It must
	// not change or keep the Message's Value, nor reply.
	OnMessage func(*Session, *Message)
	// OnStateChange is called with each step of a session: connected, detached, resumed, migrated, ended. It is as Config.OnState, but in
	// order with the other hooks.
	OnStateChange func(*Session, StateChange)
	// OnLaneOpen and OnLaneClose are called when a stream is open and when it has ended, and so with the record streams, bulk lanes and
	// transfers that run on streams of the session.
	OnLaneOpen, OnLaneClose func(*Session, Lane)
	// OnCron is called every CronPeriod while the session lives. A call that is due while the last one has yet to return is left out.
	OnCron func(*Session)
	// OnError is called, once, when the session has ended by an error: not by Close, Abort or a drain of this side, and not by a Close or
	// drain of the peer that completed all work.
	OnError func(*Session, error)
	// OnClose is called, once, when the session has ended, after OnError.
	OnClose func(*Session)
	// OnRetry is called before an attempt that follows a failed one: of Client.Send, of a Keeper, or of a session that looks for another
	// carrier.
	OnRetry func(Retry)
	// OnRefuse is called when this side refuses a session, another carrier, a call, a message or a stream of the peer.
	OnRefuse func(Refusal)

	// CronPeriod is the time between calls of OnCron. If zero, the Heartbeat, or 5 s if there is none.
	CronPeriod time.Duration
	// Unordered gives up the order of all hooks but OnOpen, which stays the first, and OnError and OnClose, which stay the last. Then up to
	// half of the Workers call hooks of one session side by side.
	Unordered bool
	// Workers bounds the goroutines that call hooks. If zero, 16. At most 65536.
	Workers int

	workers hookWorkers
	common  hookLine // of events that belong to no session; its own fields are set at its first use
}

// A Lane is a stream, or what runs on streams, in a hook.
type Lane struct {
	Kind      string // "stream", "record", "bulk" or "transfer"
	Name      string // as it was opened; of a transfer, its name where it is known from the start
	Local     bool   // this side opened it; of a stream
	Dedicated bool   // it has connections of its own; of a stream
}

// A Retry is an attempt that follows a failed one.
type Retry struct {
	Op      string        // "send", "keep" or "resume"
	Peer    string        // the peer, as its owner names it
	Tag     string        // of the session
	Session *Session      // that resumes; nil if there is none
	Attempt int           // failed attempts so far
	Wait    time.Duration // before the next; 0 for "resume", where Config.Backoff says it
	Err     error         // of the last one
}

// A Refusal is work of the peer, or a session, that this side has refused.
type Refusal struct {
	Kind    string   // "carrier" (its hello was refused), "session" (by OnOpen), "call", "message" or "stream"
	Name    string   // of the link or the stream
	Peer    string   // the peer, as its owner names it
	Tag     string   // of the session
	Session *Session // nil if the peer did not get one
	Err     error    // an *Error with the code and text that the peer gets
}

// maxHookWorkers bounds Hooks.Workers.
const maxHookWorkers = 1 << 16

// Validate returns an error that names the first field that is out of range, or nil. Nil Hooks are valid.
func (h *Hooks) Validate() error {
	switch {
	case h == nil:
		return nil
	case h.CronPeriod < 0:
		return fmt.Errorf("Hooks.CronPeriod is %v, want 0 or more", h.CronPeriod)
	case h.Workers < 0 || h.Workers > maxHookWorkers:
		return fmt.Errorf("Hooks.Workers is %d, want 0 to %d", h.Workers, maxHookWorkers)
	}
	return nil
}

// most returns how many workers there may be.
func (h *Hooks) most() int {
	if h.Workers == 0 {
		return 16
	}
	return h.Workers
}

// setLine sets up a line of calls.
func (h *Hooks) setLine(l *hookLine) {
	l.workers, l.most, l.atOnce = &h.workers, h.most(), 1
	if h.Unordered {
		l.atOnce = max(1, h.most()/2)
	}
}

// ReportRetry makes OnRetry be called, if it is set. It is for those who own sessions and open others in their place. A logger that is not nil
// gets what OnRetry does wrong.
func (h *Hooks) ReportRetry(r Retry, logger *slog.Logger) {
	if h == nil || h.OnRetry == nil {
		return
	}
	h.report("OnRetry", r.Peer, logger, func() { h.OnRetry(r) })
}

// reportRefusal makes OnRefuse be called, if it is set, for something that no session has.
func (h *Hooks) reportRefusal(r Refusal, logger *slog.Logger) {
	if h == nil || h.OnRefuse == nil {
		return
	}
	h.report("OnRefuse", r.Peer, logger, func() { h.OnRefuse(r) })
}

// report calls a hook for an event that belongs to no session.
func (h *Hooks) report(name, peer string, logger *slog.Logger, fn func()) {
	h.common.mu.Lock()
	if h.common.workers == nil {
		h.setLine(&h.common)
	}
	h.common.mu.Unlock()
	h.common.add(hookCall{fn: fn, done: func(why *hook.Failure) { logHook(logger, why, name, peer) }})
}

// logHook logs that a hook of the application did not return, if why says so.
func logHook(logger *slog.Logger, why *hook.Failure, name, peer string) {
	switch {
	case why == nil || logger == nil:
	case why.Panic == nil:
		logger.Error("hook ended its goroutine", "hook", name, "peer", peer)
	default:
		logger.Error("hook panicked", "hook", name, "peer", peer, "panic", why.Panic, "stack", string(why.Stack))
	}
}

// hookOwner is a Session as the owner of the goroutines that call its hooks.
type hookOwner Session

// Exempt lets a hook close the session: the end does not wait for hooks, but for handlers that may wait for their turn behind this one.
func (o *hookOwner) Exempt(handler.Kind) {
	s := (*Session)(o)
	s.events.line.letPass()
	s.passGate(frame.Failure{Code: codes.Closed, Text: "OnOpen has closed the session"})
}

// Is reports whether x is the session.
func (o *hookOwner) Is(x any) bool { return x == any((*Session)(o)) }
