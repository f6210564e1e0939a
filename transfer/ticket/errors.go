package ticket

import (
	"errors"
	"fmt"

	"github.com/peerlane/peerlane/internal/invalid"
)

// The errors of Parse, for errors.Is. The text of the error says more.
var (
	ErrNotTicket = errors.New("not a ticket")
	// ErrDamaged is matched by the errors of a text that was a ticket: it is cut off or changed, or has something after it. Copy it again.
	ErrDamaged = errors.New("the ticket is damaged")
	ErrVersion = errors.New("the ticket is of a newer version: update peerlane")
	// ErrMalformed: the checksum is right, and the content is not. No peerlane has written it.
	ErrMalformed = errors.New("malformed ticket")
)

// damage is how a ticket is damaged. It matches ErrDamaged.
type damage string

const (
	errCutOff    damage = "the ticket is cut off"
	errExcess    damage = "there is something more after the ticket"
	errCharacter damage = "the ticket has a character that no ticket has"
	errChecksum  damage = "the ticket was changed on its way: copy it again"
)

func (d damage) Error() string { return string(d) }

// Is reports whether target is ErrDamaged.
func (d damage) Is(target error) bool { return target == ErrDamaged }

// ErrInvalid is the error of a Ticket that cannot be encoded.
var ErrInvalid = fmt.Errorf("ticket: %w", invalid.Err)

func malformedf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
