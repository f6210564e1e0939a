package bulk

import (
	"errors"
	"fmt"
	"slices"

	"github.com/peerlane/peerlane/session"
)

// Sentinels for errors.Is. Beside them, errors match session.ErrInvalid, for an argument or option; session.ErrProtocol, if the peer broke the
// protocol; and session.ErrVersion, if it speaks another version.
var (
	ErrNotTaken = errors.New("not accepted")                     // the peer's application refuses the lane
	ErrBusy     = fmt.Errorf("busy: %w", session.ErrUnavailable) // the peer has too many lanes open
)

var (
	errProtocol = session.ErrProtocol
	errVersion  = session.ErrVersion
	errInvalid  = session.ErrInvalid
)

// refusals are the reasons that have a code; of those that an error matches, the first is told.
var refusals = []struct {
	code refusal
	err  error
}{{refuseProtocol, errProtocol}, {refuseVersion, errVersion}, {refuseBusy, ErrBusy}, {refuseNotAccepted, ErrNotTaken}}

func (r refusal) err() error {
	for _, known := range refusals {
		if known.code == r {
			return fmt.Errorf("the peer refuses the lane: %w", known.err)
		}
	}
	return fmt.Errorf("the peer refuses the lane with code %d", uint16(r))
}

// refusalOf returns what the peer is told about err.
func refusalOf(err error) refusal {
	for _, known := range refusals {
		if errors.Is(err, known.err) {
			return known.code
		}
	}
	return refuseNotAccepted
}

// distinct returns the errors that err joins, each once. Those of streams are without the number of their bytes, which are in part headers.
func distinct(err error) error {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok && !isOfStream(err) {
		all = joined.Unwrap()
	}
	var texts []string
	var kept []error
	for _, err := range all {
		if isOfStream(err) {
			bare := *err.(*session.Error) //nolint:errorlint // itself
			if !bare.Remote {             // the peer's words stay
				bare.Text = ""
			}
			err = &bare
		}
		if text := err.Error(); !slices.Contains(texts, text) {
			texts, kept = append(texts, text), append(kept, err)
		}
	}
	return errors.Join(kept...)
}

// isOfStream reports whether err is itself the error of a stream.
func isOfStream(err error) bool {
	_, ok := err.(*session.Error) //nolint:errorlint // itself
	return ok
}

func protocolErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errProtocol, fmt.Errorf(format, args...))
}
