package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/invalid"
)

// An Outcome says what a caller may believe about work that ended in an error (invariant 5).
type Outcome uint8

// The outcomes. Only NotSent is retried automatically.
const (
	Unknown   Outcome = 0 // it was sent, and no answer came: it may have run
	NotSent   Outcome = 1 // it was never sent completely: it has not run
	Delivered Outcome = 2 // the handler ran; the error is its answer
	Rejected  Outcome = 3 // the peer refused it, or an Interceptor of this side: it has not run
)

var outcomeNames = [...]string{Unknown: "unknown", NotSent: "not sent", Delivered: "delivered", Rejected: "rejected"}

// String returns "unknown", "not sent", "delivered" or "rejected".
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome %d", uint8(o))
}

// Sentinels for errors.Is. The typed errors of this package match them through Error.Code.
var (
	ErrClosed      = fmt.Errorf("session closed: %w", net.ErrClosed) // this side closed the session
	ErrSessionLost = errors.New("session lost")                      // it ended, or lost its carrier, and this side had not closed it; the rest of the error says why
	ErrNotFound    = errors.New("not found")                         // no such link, stream name or session
	ErrUnavailable = errors.New("unavailable")                       // the peer is over a limit; Error.RetryAfter is its hint
	ErrTooLarge    = errors.New("too large")                         // over a size limit
	ErrProtocol    = errors.New("protocol error")                    // the peer broke the protocol
	ErrVersion     = errors.New("no common protocol version")        // the peer speaks another version
	ErrUnsupported = errors.New("unsupported")                       // the peer lacks a capability, codec or lane
	ErrNotAllowed  = errors.New("not allowed")                       // admission refused this peer, or links and streams are closed to it
	ErrGoingAway   = errors.New("going away")                        // the peer is draining
	ErrNoReply     = errors.New("handler returned without a reply")  // SendWait reached a handler that did not reply
	ErrInternal    = errors.New("internal error")                    // the remote handler panicked
	ErrUndecodable = errors.New("undecodable")                       // a value does not fit the type that its receiver takes
	ErrReplied     = errors.New("message already replied to")        // second Reply
	ErrOneWay      = errors.New("message wants no reply")            // Reply to a one-way message
	ErrInvalid     = invalid.Err                                     // an argument or a field of a Config; the text names it
	ErrPSKRequired = errors.New("psk required")                      // one side wants a pre-shared key, the other has none
	ErrPSKMismatch = errors.New("psk mismatch")                      // the keys differ
	ErrPSKTampered = errors.New("psk hello changed on the way")      // the key is right, but the hello was changed
	ErrPSKReplayed = errors.New("psk hello replayed")                // a hello that was seen before
)

var codeErrors = map[codes.Code]error{
	codes.Internal:      ErrInternal,
	codes.NotFound:      ErrNotFound,
	codes.Unavailable:   ErrUnavailable,
	codes.TooLarge:      ErrTooLarge,
	codes.Protocol:      ErrProtocol,
	codes.FlowControl:   ErrProtocol,
	codes.Version:       ErrVersion,
	codes.Unsupported:   ErrUnsupported,
	codes.Cancelled:     context.Canceled,
	codes.Timeout:       os.ErrDeadlineExceeded,
	codes.PSKRequired:   ErrPSKRequired,
	codes.PSKUnexpected: ErrPSKRequired,
	codes.PSKMismatch:   ErrPSKMismatch,
	codes.PSKReplayed:   ErrPSKReplayed,
	codes.PSKTampered:   ErrPSKTampered,
	codes.ReplyTooLarge: ErrTooLarge,
	codes.ReadClosed:    syscall.EPIPE,
	codes.Unread:        syscall.EPIPE,
	codes.NotAllowed:    ErrNotAllowed,
	codes.GoingAway:     ErrGoingAway,
	codes.NoReply:       ErrNoReply,
	codes.Undecodable:   ErrUndecodable,
}

// Error is the typed error of sessions and of the layers above. By errors.Is it matches the sentinel of its Code and any error that Err
// wraps.
type Error struct {
	Op         string        // "send", "open stream", "hello", ...
	Peer       string        // the peer, as its owner names it; empty if not known
	Link       string        // the link or stream name; empty if none
	Remote     bool          // reported by the peer; otherwise found by this side
	Code       codes.Code    // the reason
	Outcome    Outcome       // what a caller may believe about the work
	RetryAfter time.Duration // with codes.Unavailable: when to try again; 0 if the peer gave no hint
	Text       string        // the peer's or the handler's own words; untrusted when Remote
	Err        error         // the cause on this side, if any
	Details    error         // what else is known, for errors.As, such as a *peerlane.Explanation; it is no part of the text

	refused bool // the peer sent a REFUSE, and not only a reset
}

// ofWork are the Ops of errors about the work of a caller, of which Unknown says something.
var ofWork = map[string]bool{"send": true, "call": true, "legacy call": true, "reply": true, "flush": true, "open stream": true, "stream": true,
	"lane": true, "write": true, "close": true}

// Error returns "op link at peer: remote code: text: cause (outcome)", without the empty parts. The outcome is left out where the cause ends
// with the same, and where it is Unknown and the error is not about the work of a caller.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Link != "" {
		fmt.Fprintf(&b, " %q", e.Link)
	}
	if e.Peer != "" {
		b.WriteString(" at " + e.Peer)
	}
	if e.Remote {
		b.WriteString(": remote")
	}
	if e.Code != codes.OK {
		b.WriteString(": " + e.Code.String())
	}
	if e.Text != "" {
		fmt.Fprintf(&b, ": %q", e.Text)
	}
	if e.RetryAfter > 0 {
		b.WriteString(": retry after " + e.RetryAfter.String())
	}
	outcome := ""
	if e.Outcome != Unknown || ofWork[e.Op] {
		outcome = " (" + e.Outcome.String() + ")"
	}
	if e.Err != nil {
		if cause := strings.TrimSuffix(e.Err.Error(), outcome); cause != e.Text {
			b.WriteString(": " + cause)
		}
	}
	b.WriteString(outcome)
	return strings.TrimPrefix(strings.TrimPrefix(b.String(), ":"), " ") // of an Error without an Op, as a program makes one
}

// Unwrap returns the sentinel of Code, if it has one, Err and Details, if set.
func (e *Error) Unwrap() []error {
	errs := make([]error, 0, 3)
	if err, ok := codeErrors[e.Code]; ok {
		errs = append(errs, err)
	}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	if e.Details != nil {
		errs = append(errs, e.Details)
	}
	return errs
}

// Timeout reports whether a deadline passed; part of net.Error.
func (e *Error) Timeout() bool {
	return errors.Is(e, os.ErrDeadlineExceeded) || errors.Is(e, context.DeadlineExceeded)
}

// Temporary reports whether the same call may succeed later; part of net.Error.
func (e *Error) Temporary() bool { return e.Timeout() || e.Code == codes.Unavailable }

var _ net.Error = (*Error)(nil)

// lostFor returns ErrSessionLost with its cause, if there is one, on one line.
func lostFor(cause error) error {
	if cause == nil {
		return ErrSessionLost
	}
	return fmt.Errorf("%w: %w", ErrSessionLost, cause)
}

// cause returns what e adds beyond its code: its Err, or its text.
func (e *Error) cause() error {
	if e.Err == nil && e.Text != "" {
		return errors.New(e.Text)
	}
	return e.Err
}

// outcomes maps each refusal of the peer to the outcome of the refused work. Codes that are not listed mean Unknown.
var outcomes = map[codes.Code]Outcome{
	codes.Internal:      Delivered,
	codes.Application:   Delivered,
	codes.NoReply:       Delivered,
	codes.ReplyTooLarge: Delivered,
	codes.NotFound:      Rejected,
	codes.Unavailable:   Rejected,
	codes.TooLarge:      Rejected,
	codes.Unsupported:   Rejected,
	codes.NotAllowed:    Rejected,
	codes.Unread:        Rejected,
	codes.Undecodable:   Rejected,
	codes.GoingAway:     NotSent,
}

// remote returns the peer's failure as an error.
func remote(f frame.Failure) *Error {
	return &Error{Remote: true, Code: f.Code, Outcome: outcomes[f.Code], RetryAfter: f.RetryAfter, Text: f.Text}
}

// refusalBy returns an error of Admit or OnOpen as the refusal that the peer gets.
func refusalBy(err error) *Error {
	var refusal *Error
	switch is := errors.As(err, &refusal); {
	case is && refusal == nil: // a nil *Error in an error, which is not nil
		return &Error{Code: codes.NotAllowed}
	case is && refusal.Code != codes.OK:
		return refusal
	}
	return &Error{Code: codes.NotAllowed, Text: err.Error(), Err: err}
}
