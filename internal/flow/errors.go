package flow

import (
	"errors"
	"fmt"
)

// Why a flow is closed, or a call has failed, for errors.Is. ErrLost and ErrProtocol are those of package resume.
var (
	// ErrLost: the flow was detached for the whole ResumeWindow.
	ErrLost = errors.New("connection lost, and not resumed in time")
	// ErrProtocol: the other side breaks the protocol.
	ErrProtocol = errors.New("resume: protocol error")
	// ErrDetached: there is no carrier, or another than the one in question.
	ErrDetached = errors.New("resume: detached")
	// ErrOver: both directions of a lazy flow have ended, and the last carrier has too.
	ErrOver = errors.New("closed by the other side")
)

var (
	errNoNext = errors.New("the carrier has ended in order and none has followed")
	errGap    = errors.New("bytes are missing before the first on this carrier")
	errSilent = errors.New("the carrier has been silent for too long")
)

// ProtocolErrorf returns an error that matches ErrProtocol.
func ProtocolErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}
