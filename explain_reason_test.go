package peerlane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/advice"
	"github.com/peerlane/peerlane/session"
)

// Each error of a connect has its reason, whoever wraps it.
func TestEachErrorHasItsReason(t *testing.T) {
	const circuit = "/ip4/11.0.0.2/tcp/4001/p2p/" + strangerID + "/p2p-circuit"
	dials := func(all ...swarm.TransportError) error {
		return fmt.Errorf("%w: %w", ErrUnreachable, &swarm.DialError{Cause: swarm.ErrAllDialsFailed, DialErrors: all})
	}
	dial := func(addr string, cause error) swarm.TransportError {
		return swarm.TransportError{Address: ma.StringCast(addr), Cause: cause}
	}
	refusal := func(e Error) error { e.Remote = true; return &e }
	after := func(op string, err error) error { return &Error{Op: op, Err: err} }
	for _, c := range []struct {
		err  error
		want Reason
		by   string
	}{
		{nil, advice.Reached, ""},
		{errors.New("what?"), advice.Failed, ""},
		{ErrStopped, advice.ClientClosed, byLocal},
		{hostClosed("connect", nil), advice.HostClosed, byLocal},
		{ErrModernPSKRequired, advice.NoAdmission, byLocal},
		{invalidf("tag: empty"), advice.Invalid, byLocal},
		{refusal(Error{Err: ErrLegacyPeer, Code: codes.PSKRequired}), advice.OldPeer, byPeer},
		{refusal(Error{Code: codes.PSKMismatch}), advice.PSKMismatch, byPeer},
		{&Error{Code: codes.PSKRequired}, advice.PSKRequired, ""},
		{refusal(Error{Code: codes.PSKUnexpected}), advice.PSKRequired, byPeer},
		{&Error{Code: codes.PSKTampered}, advice.PSKTampered, ""},
		{refusal(Error{Code: codes.PSKReplayed}), advice.PSKReplayed, byPeer},
		{&Error{Code: codes.Version}, advice.OtherVersion, ""},
		{refusal(Error{Code: codes.Unsupported}), advice.Unsupported, byPeer},
		{refusal(Error{Code: codes.GoingAway, Err: ErrNotServed}), advice.GoingAway, byPeer},
		{notServed([]protocol.ID{testTag}), advice.NotServed, byPeer},
		{refusal(Error{Code: codes.NotAllowed}), advice.NotAllowed, byPeer},
		{refusal(Error{Op: "open", Code: codes.NotAllowed}), advice.NotAllowed, byPeer},
		{&Error{Op: "open", Code: codes.NotAllowed}, advice.OwnHook, byLocal},
		{&Error{Op: "open", Err: context.Canceled}, advice.Cancelled, ""},
		{dials(dial(circuit, swarm.ErrGaterDisallowedConnection)), advice.Gated, byLocal},
		{fmt.Errorf("conn-1: peer:x: cannot reserve stream: %w", network.ErrResourceLimitExceeded), advice.OwnLimit, byLocal},
		{refusal(Error{Code: codes.Unavailable, Text: "too many calls at once"}), advice.PeerFull, byPeer},
		{refusal(Error{Code: codes.Unavailable, Text: "the share of this peer's network of the calls is running"}), advice.PeerShare, byPeer},
		{&Error{Code: codes.Unavailable, Err: errors.New("waited")}, advice.PeerLimit, byPeer},
		{fmt.Errorf("%w: %w", ErrUnreachable, swarm.ErrNoAddresses), advice.NoAddress, ""},
		{routing.ErrNotFound, advice.NoAddress, ""},
		{swarm.ErrNoGoodAddresses, advice.NoGoodAddress, byLocal},
		{ErrRelayOnly, advice.RelayOnly, byLocal},
		{sec.ErrPeerIDMismatch{}, advice.OtherPeer, ""},
		{after("hello", os.ErrDeadlineExceeded), advice.Silent, ""},
		{after("connect", context.DeadlineExceeded), advice.NoAnswer, ""},
		{after("connect", context.Canceled), advice.Cancelled, ""},
		{after("negotiate", io.ErrUnexpectedEOF), advice.ConnectionLost, ""},
		{after("connect", errConnGone), advice.ConnectionLost, ""},
		{ErrUnreachable, advice.Unreachable, ""},
		{dials(dial("/unix/run/app.sock", syscall.ENOENT)), advice.NoSocket, ""},
		{dials(dial("/ip4/11.0.0.2/tcp/1", syscall.ECONNREFUSED)), advice.NotListening, ""},
		{dials(dial("/ip4/11.0.0.2/tcp/1", syscall.ECONNREFUSED), dial("/ip4/11.0.0.3/tcp/1", os.ErrDeadlineExceeded)), advice.NoAnswer, ""},
		{dials(dial("/ip4/11.0.0.2/tcp/1", syscall.ECONNREFUSED), dial("/ip4/11.0.0.2/udp/1/quic-v1", context.DeadlineExceeded)),
			advice.NotListening, ""},
		{dials(dial("/ip4/192.168.1.2/tcp/1", syscall.ECONNREFUSED), dial("/ip4/192.168.1.2/udp/1/quic-v1", context.DeadlineExceeded)),
			advice.NotListening, ""},
		{dials(dial("/ip4/11.0.0.2/tcp/1", syscall.ECONNREFUSED), dial("/ip4/11.0.0.3/udp/1/quic-v1", context.DeadlineExceeded)),
			advice.NoAnswer, ""},
		{dials(dial("/ip4/11.0.0.2/tcp/1", syscall.EHOSTUNREACH)), advice.Unreachable, ""},
		{dials(dial("/ip4/192.168.1.2/tcp/1", os.ErrDeadlineExceeded)), advice.OtherNetwork, ""},
		{dials(dial("/ip4/11.0.0.2/udp/1/quic-v1", os.ErrDeadlineExceeded)), advice.NoAnswerUDP, ""},
		{dials(dial(circuit, errors.New("error opening relay circuit: PERMISSION_DENIED (202)"))), advice.RelayDenies, byRelay},
		{dials(dial(circuit, errors.New("error opening hop stream to relay: gone"))), advice.RelayGone, byRelay},
		{dials(dial(circuit, errors.New("failed to negotiate security protocol: EOF"))), advice.RelaySpent, byRelay},
	} {
		require.Equal(t, c.want, ReasonOf(c.err), "%v", c.err)
		if c.err == nil {
			continue
		}
		require.Equal(t, c.want, ReasonOf(fmt.Errorf("around: %w", c.err)), "%v", c.err)
		require.Equal(t, c.by, byOf(c.want, c.err), "%v", c.err)
		carried := &Error{Op: "send", Outcome: session.NotSent, Err: c.err, Details: &Explanation{Reason: "another"}}
		require.Equal(t, Reason("another"), ReasonOf(carried))
	}
}

// The texts of times and limits.
func TestExplanationsHaveReadableFigures(t *testing.T) {
	require.Equal(t, "1m5s", timeText(65_400_000_000))
	require.Equal(t, "1.5 s", timeText(1_500_000_000))
	require.Equal(t, "12 ms", timeText(12_300_000))
	require.Equal(t, "0.4 ms", timeText(412_000))
	require.Equal(t, "a\\u202eb c", printable("a\u202eb\n\tc"))
	require.Equal(t, `\ufffd\x1b[2J`, printable("\xff\x1b[2J"))
	require.Equal(t, "of the relay: connections", ExplainedLimit{By: byRelay, Name: "connections"}.String())
	require.Equal(t, "r, not connected, keeps each connection for 2m0s", ExplainedRelay{Relay: "r", Duration: 120_000_000_000}.String())
	require.Equal(t, "r, connected, without limits", ExplainedRelay{Relay: "r", Connected: true, Used: true}.String())
	require.Equal(t, "relay the peer: no answer, within 5.0 s, the last of 3 times",
		ExplainedDial{Relay: true, Took: 5_000_000_000, Times: 3, Error: "no answer"}.String())
}
