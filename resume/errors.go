package resume

import (
	"errors"
	"fmt"

	"github.com/peerlane/peerlane/internal/flow"
	"github.com/peerlane/peerlane/internal/invalid"
)

// The errors of this package, for errors.Is.
var (
	// ErrLost: the connection was lost, and not resumed within the resume window.
	ErrLost = flow.ErrLost
	// ErrProtocol: the other side breaks the protocol.
	ErrProtocol = flow.ErrProtocol
	// ErrInvalid is an argument that cannot work; the text names the field.
	ErrInvalid = fmt.Errorf("resume: %w", invalid.Err)
	// ErrStranger: what was dialed does not speak this protocol. It matches ErrProtocol too.
	ErrStranger = fmt.Errorf("%w: the other side does not speak it", ErrProtocol)

	// ErrUnknown: the accepting side does not know the connection that was to be resumed, or not any more. It comes with
	// ErrLost.
	ErrUnknown = errors.New("the other side does not know this connection")
	// ErrBusy: the accepting side has no room for a further connection, for now.
	ErrBusy = errors.New("the other side has no room for a further connection")
	// ErrVersion: the accepting side does not speak this version of the protocol.
	ErrVersion = errors.New("the other side does not speak this version of resume")
)

var (
	errStale       = errors.New("a later attempt to resume came first")
	errGivenUp     = errors.New("the hello took too long")
	errUndelivered = fmt.Errorf("closed before everything was delivered: %w", ErrLost)
	errNoListener  = fmt.Errorf("%w: its listener is closed", ErrLost)
	errTooMany     = fmt.Errorf("%w: too many connections are detached", ErrLost)
)
