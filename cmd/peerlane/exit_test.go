package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
)

func TestEachOutcomeHasItsExitCode(t *testing.T) {
	typed := func(code codes.Code, outcome session.Outcome, err error) error {
		return fmt.Errorf("around: %w", &peerlane.Error{Code: code, Outcome: outcome, Err: err})
	}
	for _, c := range []struct {
		err  error
		code int
		hint string // a part of it
	}{
		{errors.New("disk full"), exitLocal, ""},
		{errFailed, exitLocal, ""},
		{errNoRelay, exitUnreachable, "--relay"},
		{fmt.Errorf("%w: %w: connection refused", errNoRelay, context.DeadlineExceeded), exitUnreachable, "--relay"},
		{errInterrupted, exitInterrupted, ""},
		{fmt.Errorf("%w: both", errUsage), exitUsage, "--help"},
		{fmt.Errorf("%w: peer", node.ErrInvalid), exitUsage, ""},
		{peerlane.ErrInvalid, exitUsage, ""},
		{node.ErrKeyFormat, exitLocal, ""},
		{node.ErrKeyExposed, exitLocal, ""},
		{typed(0, session.NotSent, peerlane.ErrUnreachable), exitUnreachable, "firewalls"},
		{typed(0, session.NotSent, peerlane.ErrRelayOnly), exitUnreachable, "NAT"},
		{typed(0, session.NotSent, io.ErrUnexpectedEOF), exitUnreachable, "nothing was sent"},
		{typed(codes.NotFound, session.Rejected, peerlane.ErrNotServed), exitNotServed, "--tag"},
		{typed(codes.PSKMismatch, session.NotSent, nil), exitRefused, "--psk-file"},
		{typed(codes.PSKRequired, session.NotSent, nil), exitRefused, "on both"},
		{typed(codes.PSKUnexpected, session.NotSent, nil), exitRefused, "on both"},
		{typed(codes.PSKRequired, session.NotSent, peerlane.ErrLegacyPeer), exitRefused, ""},
		{typed(codes.NotAllowed, session.NotSent, nil), exitRefused, "--allow"},
		{typed(codes.Version, session.Rejected, nil), exitRefused, ""},
		{typed(0, session.NotSent, context.DeadlineExceeded), exitUnreachable, "nothing was sent"},
		{context.DeadlineExceeded, exitTimeout, "--timeout"},
		{typed(0, session.Unknown, context.DeadlineExceeded), exitTimeout, "may have run"},
		{typed(0, session.Unknown, os.ErrDeadlineExceeded), exitTimeout, "may have run"},
		{typed(codes.Application, session.Delivered, nil), exitHandler, ""},
		{typed(codes.Unavailable, session.Rejected, nil), exitNoRoom, "later"},
		{typed(codes.TooLarge, session.NotSent, nil), exitNoRoom, "less"},
		{typed(codes.GoingAway, session.Rejected, nil), exitNoRoom, "stopping"},
		{typed(codes.GoingAway, session.Unknown, nil), exitUnknown, "may have run"},
		{typed(0, session.Unknown, session.ErrSessionLost), exitUnknown, "may have run"},
		{context.Canceled, exitInterrupted, ""},
		{&pingError{typed(0, session.Unknown, context.DeadlineExceeded)}, exitTimeout, "no longer answers"},
		{&pingError{typed(0, session.Unknown, session.ErrSessionLost)}, exitUnreachable, "no longer answers"},
		{&pingError{context.Canceled}, exitInterrupted, ""},
	} {
		code, hint := explain(c.err)
		require.Equal(t, c.code, code, "%v", c.err)
		require.Contains(t, hint, c.hint, "%v", c.err)
	}
}

func TestTheDescriptionListsEveryExitCode(t *testing.T) {
	for code := range exitFiles + 1 {
		require.Regexp(t, fmt.Sprintf(`[:;]\s%d `, code), description)
	}
	require.Contains(t, description, fmt.Sprint(exitInterrupted))
}

func TestOneLineNamesThePeerOnceAndFitsOnALine(t *testing.T) {
	const id = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	inner := &peerlane.Error{Op: "connect", Peer: id, Outcome: session.NotSent,
		Err: errors.New("all dials failed\n  * [/ip4/192.0.2.7/tcp/1] connection refused")}
	err := &net.OpError{Op: "dial", Net: "libp2p", Addr: peerlane.Addr{}, Err: inner}
	require.Equal(t, "connect at the peer: all dials failed [/ip4/192.0.2.7/tcp/1] connection refused (not sent)", oneLine(err))
	require.Equal(t, "plain words", oneLine(errors.New("plain\n\twords")))
}

// What one error says, those around it do not repeat.
func TestOneLineSaysEachThingOnce(t *testing.T) {
	const id = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	for _, c := range []error{
		&peerlane.Error{Op: "negotiate", Link: "/x", Peer: id, Remote: true, Code: codes.NotFound, Outcome: session.Rejected, Err: peerlane.ErrNotServed},
		&peerlane.Error{Op: "connect", Peer: id, Outcome: session.NotSent, Err: fmt.Errorf("%w: %w", peerlane.ErrUnreachable,
			errors.New("failed to dial: failed to dial "+id+": all dials failed\n  * [/ip4/192.0.2.7/tcp/1] connection refused"))},
	} {
		for _, err := range []error{c, &transfer.Error{Op: "push", Code: transfer.CodeLost, Err: c}} {
			text := oneLine(err)
			for _, word := range []string{"not found", "serve", "failed to dial", "dials failed", "unreachable", "(", id, "lost"} {
				most := 1
				if word == "failed to dial" || word == id || word == "lost" {
					most = 0
				}
				require.LessOrEqual(t, strings.Count(text, word), most, "%q in %s", word, text)
			}
			require.Contains(t, text, "at the peer")
		}
	}
}
