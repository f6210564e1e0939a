package record

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/peerlane/peerlane/internal/invalid"
	"github.com/peerlane/peerlane/session"
)

// A Code is the reason why a record stream was refused or closed (spec 6.2).
type Code uint32

// The codes of version 1. An error with one of the unexported ones matches the sentinel of the same name. Codes from CodeApplication
// on are the application's.
const (
	codeDone        Code = 0   // in order
	codeProtocol    Code = 1   // the other side broke the protocol
	codeVersion     Code = 2   // no common version
	codeNotAccepted Code = 3   // the application does not accept this stream
	codeHistory     Code = 4   // the places of the two sides do not fit together
	CodeStore       Code = 5   // the side can no longer store its position
	CodeSuperseded  Code = 6   // another stream has taken over this side's places
	codeBusy        Code = 7   // too many are open; try later
	CodeInternal    Code = 8   // a handler panicked
	CodeApplication Code = 256 // and above: the application's own
)

var codeNames = [...]string{
	codeDone: "done", codeProtocol: "protocol error", codeVersion: "no common version", codeNotAccepted: "not accepted",
	codeHistory: "no common history", CodeStore: "cannot keep its place", CodeSuperseded: "superseded", codeBusy: "busy",
	CodeInternal: "internal error",
}

// String returns the code's name, or "code N" for one that is not listed.
func (c Code) String() string {
	if c < Code(len(codeNames)) {
		return codeNames[c]
	}
	return "code " + strconv.FormatUint(uint64(c), 10)
}

// Sentinels for errors.Is.
var (
	ErrClosed     = fmt.Errorf("record stream closed: %w", net.ErrClosed)       // this side closed it
	ErrPeerClosed = fmt.Errorf("the peer closed the stream: %w", syscall.EPIPE) // in order: it applies nothing more
	ErrProtocol   = session.ErrProtocol                                         // the peer broke the protocol
	ErrVersion    = session.ErrVersion                                          // the peer speaks another version
	ErrHistory    = errors.New("no common history")                             // the places of the two sides do not fit together
	ErrNotTaken   = errors.New("not accepted")                                  // the peer's application refuses the stream
	ErrBusy       = fmt.Errorf("busy: %w", session.ErrUnavailable)              // the peer is over a limit
	ErrTooLarge   = session.ErrTooLarge                                         // a record, or a batch, over the peer's limit
	ErrRange      = errors.New("out of range")                                  // an invalid number
	ErrStore      = errors.New("cannot keep it")                                // the Store has failed
	ErrSuperseded = errors.New("another stream has taken over")                 // this stream's Store serves another one now
	ErrInvalid    = invalid.Err                                                 // an argument or option; see the text
)

// errNoRoom ends or refuses a stream for whose records the peer's share of memory has no room.
var errNoRoom = fmt.Errorf("%w: no memory for the records of this peer", ErrBusy)

var codeErrors = map[Code]error{
	codeDone: ErrPeerClosed, codeProtocol: ErrProtocol, codeVersion: ErrVersion, codeNotAccepted: ErrNotTaken,
	codeHistory: ErrHistory, codeBusy: ErrBusy,
}

// codeOf returns the code that the peer receives for err.
func codeOf(err error) Code {
	var e *Error
	switch {
	case errors.As(err, &e) && !e.Remote && e.Code != 0:
		return e.Code
	case errors.Is(err, ErrProtocol):
		return codeProtocol
	case errors.Is(err, ErrVersion):
		return codeVersion
	case errors.Is(err, ErrHistory):
		return codeHistory
	case errors.Is(err, ErrBusy):
		return codeBusy
	case errors.Is(err, ErrStore):
		return CodeStore
	case errors.Is(err, ErrSuperseded):
		return CodeSuperseded
	}
	return codeNotAccepted
}

// Error is the typed error of record streams. By errors.Is it matches the sentinel of its Code and any error that Err wraps, such as that
// of an ended session.
type Error struct {
	Op      string // "open", "write", "barrier", ...
	Name    string // of the stream
	Remote  bool   // reported by the peer
	Code    Code   // the reason, when Remote; or the code that a hook wants to send to the peer
	Text    string // the text of the peer, untrusted, or of a hook
	Applied uint64 // of an ended stream: the last record of this side that the peer is known to have applied
	Err     error  // the cause on this side, if any
}

// Error returns "op name: remote: code: text: cause: applied up to N", without the empty parts.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Name != "" {
		fmt.Fprintf(&b, " %q", e.Name)
	}
	if e.Remote {
		b.WriteString(": remote: " + e.Code.String())
	}
	if e.Text != "" {
		fmt.Fprintf(&b, ": %q", e.Text)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.Applied > 0 {
		fmt.Fprintf(&b, " (the peer has applied up to record %d)", e.Applied)
	}
	return b.String()
}

// Unwrap returns the sentinel of Code, if it has one and the peer reported it, and Err, if set.
func (e *Error) Unwrap() []error {
	errs := make([]error, 0, 2)
	if err, ok := codeErrors[e.Code]; ok && e.Remote {
		errs = append(errs, err)
	}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	return errs
}

// Timeout reports whether a deadline passed; part of net.Error.
func (e *Error) Timeout() bool {
	return errors.Is(e, os.ErrDeadlineExceeded) || errors.Is(e, context.DeadlineExceeded)
}

// Temporary reports whether the same call may succeed later; part of net.Error.
func (e *Error) Temporary() bool { return e.Timeout() || errors.Is(e, ErrBusy) }

var _ net.Error = (*Error)(nil)

// A RecordFailure means that the peer's application could not apply a record of this side.
type RecordFailure struct { //nolint:revive // users of notify know it by this name
	FailedSeq uint64 // the record
	Applied   uint64 // the last record applied
	Code      uint32 // of the peer's application
	Retryable bool   // Resend may help; otherwise the stream is over
	Message   string // the peer's text, untrusted
}

// Error implements error.
func (f *RecordFailure) Error() string {
	what := "and the stream is over"
	if f.Retryable {
		what = "and may be sent again"
	}
	return fmt.Sprintf("record %d failed with code %d, %s: %q", f.FailedSeq, f.Code, what, f.Message)
}

func protocolErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrProtocol, fmt.Errorf(format, args...))
}
