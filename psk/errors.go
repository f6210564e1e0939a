package psk

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/peerlane/peerlane/internal/invalid"
)

// Sentinels for errors.Is. Beside them a sealed conn gives io.EOF at the authenticated end, io.ErrUnexpectedEOF when the
// bytes stop without one, net.ErrClosed after Close and os.ErrDeadlineExceeded past a deadline.
var (
	// ErrInvalid is an argument that cannot work; the text names the field.
	ErrInvalid = fmt.Errorf("psk: %w", invalid.Err)

	// ErrMismatch is a handshake that does not verify: key, key id or prologue differ, or the message was changed. It
	// does not say which.
	ErrMismatch = errors.New("psk: handshake does not verify")

	// ErrReplayed is a message 1 that this keyring has accepted before.
	ErrReplayed = errors.New("psk: handshake replayed")

	// ErrTampered is a record that does not verify: changed, reordered, repeated or left out. The conn is dead in both
	// directions.
	ErrTampered = errors.New("psk: record does not verify")
)

// errUsed is the error of a second use of an Initiator, a Responder or Secrets.
var errUsed = fmt.Errorf("%w: already used", ErrInvalid)

// errBroken is the error of a Write that failed for another reason than its deadline, and of every later one; it wraps that
// reason. The peer may hold half a record, so no byte can follow.
var errBroken = errors.New("psk: writer broken")

var errWriteClosed = fmt.Errorf("psk: write after CloseWrite: %w", net.ErrClosed)

// isTimeout reports whether err is a passed deadline. ETIMEDOUT calls itself a timeout too, but is a dead conn.
func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout() && !errors.Is(err, syscall.ETIMEDOUT)
}
