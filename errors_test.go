package peerlane_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/resume"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/ticket"
)

// A wrong argument or option is peerlane.ErrInvalid, whichever package it was given to, and the error names it. boltstore tests
// that its are those of record.
// Claim: session.ErrInvalid, peerlane.ErrInvalid
func TestWrongArgumentsMatchOneError(t *testing.T) {
	for _, c := range []struct {
		names string
		err   error
	}{
		{"host", second(peerlane.NewClient(nil, nil))},
		{"MaxHandshakes", second(session.NewAcceptor(&session.AcceptorConfig{MaxHandshakes: -1}))},
		{"MaxStreams", second(session.NewAcceptor(&session.AcceptorConfig{Config: session.Config{MaxStreams: -1}}))},
		{"Heartbeat", second(session.NewAcceptor(&session.AcceptorConfig{Config: session.Config{Heartbeat: time.Minute, HeartbeatTimeout: time.Second}}))},
		{"Strands", second(bulk.Open(t.Context(), new(session.Session), "x", &bulk.Options{Strands: -1}))},
		{"session", second(record.Open(t.Context(), nil, "x", nil))},
		{"Window", second(resume.NewListener(nil, &resume.Options{Window: -1}))},
		{"key", second(psk.NewKeyring(nil))},
		{"Peers", second(node.New(t.Context(), &node.Options{Limits: &node.Limits{Peers: -1}}))},
		{"sources", second(ticket.Ticket{}.Encode())},
		{"dial", second(transfer.Push(t.Context(), nil, nil, nil).Wait())},
	} {
		require.ErrorIs(t, c.err, peerlane.ErrInvalid, c.names)
		require.ErrorContains(t, c.err, c.names)
	}
}

func second[T any](_ T, err error) error { return err }

// What a lane's error means for a caller does not depend on the lane.
func TestErrorsOfLanesAreTheSessions(t *testing.T) {
	for lane, of := range map[error]error{
		bulk.ErrBusy: peerlane.ErrUnavailable, record.ErrBusy: peerlane.ErrUnavailable, record.ErrTooLarge: peerlane.ErrTooLarge,
		record.ErrProtocol: session.ErrProtocol,
		record.ErrVersion:  session.ErrVersion,
	} {
		require.True(t, errors.Is(lane, of), "%v, %v", lane, of)
	}
}
