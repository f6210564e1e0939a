package resume

import (
	"errors"
	"fmt"
)

// The errors of this package, for errors.Is.
var (
	// ErrLost: the connection was lost, and not resumed within the time of patience.
	ErrLost = errors.New("connection lost, and not resumed in time")
	// ErrProtocol: the other side breaks the protocol.
	ErrProtocol = errors.New("resume: protocol error")
	// ErrDetached: there is no carrier, or another than the one in question.
	ErrDetached = errors.New("resume: detached")
)

var (
	errOver   = errors.New("closed by the other side")
	errNoNext = errors.New("the carrier has ended in order and none has followed")
	errGap    = errors.New("bytes are missing before the first on this carrier")
)

func protocolErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}
