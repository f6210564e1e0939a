package peerlane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/session"
)

// invalidf returns an error that matches ErrInvalid; the format names the argument or field first.
func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

// isTimeout reports whether err is the timeout of a deadline, as far as the error alone can tell: a connection that
// died of its idle timeout says Timeout too, and matches net.ErrClosed besides.
func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout() && !errors.Is(err, net.ErrClosed) && !errors.Is(err, network.ErrReset)
}

// A breakError is why a stream ended without an end. It shows the transport's own words but unwraps only to what this
// package promises: the transports' errors also match net.ErrClosed (an idle QUIC connection) or io.EOF (a TCP
// connection cut under yamux), which would be taken for a Close of this side or for the orderly end.
type breakError struct {
	text string
	errs []error
}

func (e *breakError) Error() string   { return e.text }
func (e *breakError) Unwrap() []error { return e.errs }

// streamBroken returns the typed error for a stream that ended without an end: it was reset, or its connection was
// lost. It matches syscall.ECONNRESET, as errors.As a *network.StreamError or *network.ConnError if there was a code,
// and io.ErrUnexpectedEOF if the connection was lost under it.
func streamBroken(op string, err error) *Error {
	out := &Error{Op: op}
	words := errors.New(err.Error())
	broken := &breakError{errs: []error{syscall.ECONNRESET}}
	why := "connection lost"
	if se := resetOf(err); se != nil {
		out.Remote = se.Remote
		out.Code, out.Outcome, why = explainStreamCode(uint32(se.ErrorCode))
		broken.errs = append(broken.errs,
			&network.StreamError{ErrorCode: se.ErrorCode, Remote: se.Remote, TransportError: words})
	} else {
		broken.errs = append(broken.errs, io.ErrUnexpectedEOF)
		if ce, ok := errors.AsType[*network.ConnError](err); ok {
			out.Remote = ce.Remote
			out.Code, why = explainConnCode(uint32(ce.ErrorCode))
			broken.errs = append(broken.errs,
				&network.ConnError{ErrorCode: ce.ErrorCode, Remote: ce.Remote, TransportError: words})
		}
	}
	broken.text = why + ": " + err.Error()
	out.Err = broken
	return out
}

// resetOf returns the reset of the stream that err came from, nil if it was not reset itself: where a relay resets its
// hop, every stream of the connection over it fails with an error that wraps the hop's reset.
func resetOf(err error) *network.StreamError {
	se, ok := err.(*network.StreamError) //nolint:errorlint // a wrapped one is another stream's
	if !ok {
		return nil
	}
	if _, ok := errors.AsType[*network.StreamError](se.TransportError); ok {
		return nil
	}
	return se
}

// raiseHint says what to do where a limit on streams is reached.
const raiseHint = "use fewer at once, or raise the limit: node.Options.ConnsPerPeer of the host that accepts them"

// libp2pCodes holds what libp2p's own stream error codes 0x1001..0x1008 mean; those of connections are one lower.
var libp2pCodes = [...]struct {
	code    codes.Code
	outcome session.Outcome
	text    string
}{
	{codes.Protocol, session.Rejected, "protocol negotiation failed"},
	{codes.Unavailable, session.Rejected, "a limit of the libp2p resource manager was reached (streams of one " +
		"protocol and peer, streams of one peer, memory): " + raiseHint},
	{codes.Unavailable, session.Rejected, "rate limited: open fewer per second"},
	{codes.Protocol, session.Unknown, "protocol violation"},
	{codes.Closed, session.Unknown, "supplanted by a newer one"},
	{codes.Unavailable, session.Unknown, "trimmed by the connection manager: raise its limits, or protect the peer"},
	{codes.GoingAway, session.Unknown, "the host shut down"},
	{codes.NotAllowed, session.Rejected, "refused by the connection gater"},
}

const (
	firstStreamCode = uint32(network.StreamProtocolNegotiationFailed)
	firstConnCode   = uint32(network.ConnProtocolNegotiationFailed)
)

// explainStreamCode returns what the reset code of a stream says. A code that is neither ours nor libp2p's belongs to
// an application that does not use peerlane.
func explainStreamCode(code uint32) (codes.Code, session.Outcome, string) {
	if code >= frame.CodeBase {
		c := codes.Code(code - frame.CodeBase)
		if c == codes.Unavailable || c == codes.NotAllowed {
			return c, session.Rejected, "stream refused"
		}
		return c, session.Unknown, "stream reset"
	}
	if i := code - firstStreamCode; i < uint32(len(libp2pCodes)) {
		e := libp2pCodes[i]
		return e.code, e.outcome, e.text
	}
	if code == 0 {
		return codes.Closed, session.Unknown, "stream reset"
	}
	return codes.Application, session.Unknown, "stream reset"
}

// explainConnCode is explainStreamCode for the code a connection was closed with.
func explainConnCode(code uint32) (codes.Code, string) {
	if i := code - firstConnCode; i < uint32(len(libp2pCodes)) {
		return libp2pCodes[i].code, "connection closed: " + libp2pCodes[i].text
	}
	return codes.Closed, "connection closed"
}

// dialFailed returns the typed error for err in a phase of dialing. Nothing of the caller's has left yet, so the
// outcome is Rejected if the peer said so and NotSent otherwise.
func dialFailed(ctx context.Context, phase string, err error) *Error {
	out := &Error{Op: phase, Err: err}
	var typed *Error
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		out.Code, out.Err = codes.Timeout, ctx.Err()
	case ctx.Err() != nil:
		out.Code, out.Err = codes.Cancelled, ctx.Err()
	case errors.As(err, &typed):
		*out = *typed
	case errors.Is(err, network.ErrResourceLimitExceeded):
		out.Code = codes.Unavailable
	}
	out.Outcome = session.NotSent
	if out.Remote {
		out.Outcome = session.Rejected
	}
	return out
}
