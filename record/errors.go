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
)

// A Code says why a record stream was refused or closed (spec 6.2).
type Code uint32

// The codes of version 1. Those from CodeApplication on are the application's.
const (
	CodeDone        Code = 0   // in order
	CodeProtocol    Code = 1   // the other side broke the protocol
	CodeVersion     Code = 2   // no common version
	CodeNotAccepted Code = 3   // the application does not take this stream
	CodeHistory     Code = 4   // the places of the two sides do not fit together
	CodeStore       Code = 5   // the side cannot keep its place any more
	CodeSuperseded  Code = 6   // another stream has taken over this side's places
	CodeBusy        Code = 7   // too much is open; later may do
	CodeInternal    Code = 8   // a handler panicked
	CodeApplication Code = 256 // and above: the application's own
)

var codeNames = [...]string{
	CodeDone: "done", CodeProtocol: "protocol error", CodeVersion: "no common version", CodeNotAccepted: "not accepted",
	CodeHistory: "no common history", CodeStore: "cannot keep its place", CodeSuperseded: "superseded", CodeBusy: "busy",
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
	ErrProtocol   = errors.New("protocol error")                                // the peer broke the protocol
	ErrVersion    = errors.New("no common protocol version")                    // the peer speaks another version
	ErrHistory    = errors.New("no common history")                             // the places of the two sides do not fit together
	ErrNotTaken   = errors.New("not accepted")                                  // the peer's application refuses the stream
	ErrBusy       = errors.New("busy")                                          // the peer is over a limit
	ErrTooLarge   = errors.New("too large")                                     // a record, or a batch, over what the peer takes
	ErrRange      = errors.New("out of range")                                  // a number that is not due
	ErrStore      = errors.New("cannot keep it")                                // the Store has failed
	ErrSuperseded = errors.New("another stream has taken over")                 // this stream's Store serves another one now
	ErrInvalid    = errors.New("invalid options")                               // see the text
)

var codeErrors = map[Code]error{
	CodeDone: ErrPeerClosed, CodeProtocol: ErrProtocol, CodeVersion: ErrVersion, CodeNotAccepted: ErrNotTaken,
	CodeHistory: ErrHistory, CodeBusy: ErrBusy,
}

// codeOf returns what the peer is told about err.
func codeOf(err error) Code {
	var e *Error
	switch {
	case errors.As(err, &e) && !e.Remote && e.Code != 0:
		return e.Code
	case errors.Is(err, ErrProtocol):
		return CodeProtocol
	case errors.Is(err, ErrVersion):
		return CodeVersion
	case errors.Is(err, ErrHistory):
		return CodeHistory
	case errors.Is(err, ErrBusy):
		return CodeBusy
	case errors.Is(err, ErrStore):
		return CodeStore
	case errors.Is(err, ErrSuperseded):
		return CodeSuperseded
	}
	return CodeNotAccepted
}

// Error is the typed error of record streams. It matches, by errors.Is, the sentinel of its Code and whatever Err wraps: that of
// a session that has ended, for one.
type Error struct {
	Op      string // "open", "write", "barrier", ...
	Name    string // the stream's
	Remote  bool   // the peer said so
	Code    Code   // why, when Remote; or what a hook wants the peer to be told
	Text    string // the words of the peer, which are not to be trusted, or of a hook
	Applied uint64 // the last record of this side that the peer is known to have applied, of a stream that has ended
	Err     error  // the cause on this side, if any
}

// Error returns "op name: remote: code: text: cause: applied up to N", leaving out what is empty.
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

// Unwrap returns the sentinel of Code, if it has one and the peer said so, and Err, if set.
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

// Temporary reports whether the same may succeed later; part of net.Error.
func (e *Error) Temporary() bool { return e.Timeout() || errors.Is(e, ErrBusy) }

var _ net.Error = (*Error)(nil)

// A RecordFailure says that the peer's application could not apply a record of this side.
type RecordFailure struct { //nolint:revive // "Failure" beside Error would not say of what
	FailedSeq uint64 // the record
	Applied   uint64 // the last record that has been applied
	Code      uint32 // the peer's application's
	Retryable bool   // Resend may help; otherwise the stream is over
	Message   string // the peer's words, not to be trusted
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
