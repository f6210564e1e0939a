package ticket

import (
	"errors"
	"fmt"

	"github.com/peerlane/peerlane/internal/invalid"
)

// What is wrong with a text that is no ticket, for errors.Is. The text of the error says more.
var (
	ErrNotTicket = errors.New("not a ticket")
	ErrVersion   = errors.New("the ticket is of a newer version: update peerlane")
	ErrCutOff    = errors.New("the ticket is cut off")
	ErrExcess    = errors.New("there is something more after the ticket")
	ErrCharacter = errors.New("the ticket has a character that no ticket has")
	ErrChecksum  = errors.New("the ticket was changed on its way: copy it again")
	// ErrMalformed: the checksum is right, and the content is not. No peerlane has written it.
	ErrMalformed = errors.New("malformed ticket")
)

// ErrInvalid says that a Ticket cannot be encoded.
var ErrInvalid = fmt.Errorf("ticket: %w", invalid.Err)

func malformedf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
