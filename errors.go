package peerlane

import (
	"errors"

	"github.com/peerlane/peerlane/internal/invalid"
	"github.com/peerlane/peerlane/session"
)

// Error is the typed error of every floor: which phase failed (Op), at which peer and tag, whether the peer said so
// (Remote), why (Code), and what the caller may believe about its work (Outcome). Conns and dialers hand it out inside
// a *net.OpError; errors.As finds it.
type Error = session.Error

// Sentinels of the session floor, for errors.Is. What they mean is documented there.
var (
	ErrNotFound    = session.ErrNotFound
	ErrUnavailable = session.ErrUnavailable
	ErrTooLarge    = session.ErrTooLarge
	ErrNotAllowed  = session.ErrNotAllowed
	ErrGoingAway   = session.ErrGoingAway
)

// Sentinels of dialing and listening, for errors.Is.
var (
	// ErrInUse: the tag already has a listener or a stream handler on this host.
	ErrInUse = errors.New("tag is in use on this host")
	// ErrNotServed: the peer was reached and serves none of the tags asked for. It matches ErrNotFound too.
	ErrNotServed error = notServedError{}
	// ErrRelayOnly: the peer can be reached only over a relay that the dialer's path policy refuses.
	ErrRelayOnly = errors.New("peer is reachable only over a relay")
	// ErrUnreachable: no connection to the peer could be made; the cause of each address is wrapped.
	ErrUnreachable = errors.New("peer is unreachable")
	// ErrInvalid: an argument or a field of a configuration has an invalid value; the text names it.
	ErrInvalid = invalid.Err
)

// notServedError is the type of ErrNotServed, whose text does not repeat that of ErrNotFound.
type notServedError struct{}

func (notServedError) Error() string { return "the peer does not serve this tag" }

func (notServedError) Is(target error) bool { return target == ErrNotFound }
