package peerlane

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/host"

	"github.com/peerlane/peerlane/codes"
)

// errHostClosed is the cause when an operation ends because its host has been closed.
var errHostClosed = fmt.Errorf("the host is closed: %w", ErrStopped)

// hostDone returns a channel that is closed with the host, as libp2p's swarm has one, or nil if the host has none.
func hostDone(h host.Host) <-chan struct{} {
	if n, ok := h.Network().(interface{ Done() <-chan struct{} }); ok {
		return n.Done()
	}
	return nil
}

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// hostClosed returns the typed error of an operation on a closed host. The error shows the cause, if any, but does not match it: a
// connection lost with its host is closed, not lost.
func hostClosed(op string, cause error) *Error {
	err := errHostClosed
	if cause != nil {
		err = fmt.Errorf("%w: %s", errHostClosed, cause.Error())
	}
	return &Error{Op: op, Code: codes.Closed, Err: err}
}
