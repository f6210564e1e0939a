package bulk

import (
	"errors"
	"fmt"
	"syscall"
)

// Sentinels for errors.Is.
var (
	ErrProtocol = errors.New("protocol error")             // the peer broke the protocol
	ErrVersion  = errors.New("no common protocol version") // the peer speaks another version
	ErrNotTaken = errors.New("not accepted")               // the peer's application refuses the lane
	ErrBusy     = errors.New("busy")                       // the peer has too many lanes open
	ErrInvalid  = errors.New("invalid options")            // see the text
)

// errReadClosed is why Write fails once the peer reads no more.
var errReadClosed = fmt.Errorf("the peer reads no more: %w", syscall.EPIPE)

var refusals = map[refusal]error{
	refuseProtocol: ErrProtocol, refuseVersion: ErrVersion, refuseNotAccepted: ErrNotTaken, refuseBusy: ErrBusy,
}

func (r refusal) err() error {
	if err, ok := refusals[r]; ok {
		return fmt.Errorf("the peer refuses the lane: %w", err)
	}
	return fmt.Errorf("the peer refuses the lane with code %d", uint16(r))
}

// refusalOf returns what the peer is told about err.
func refusalOf(err error) refusal {
	for r, e := range refusals {
		if errors.Is(err, e) {
			return r
		}
	}
	return refuseNotAccepted
}

func protocolErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrProtocol, fmt.Errorf(format, args...))
}
