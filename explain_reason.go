package peerlane

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/advice"
	"github.com/peerlane/peerlane/session"
)

// ReasonOf returns why a peer could not be reached, as far as err tells: that of the Explanation that err carries, if any. For nil it is "reached".
func ReasonOf(err error) Reason {
	if why, ok := errors.AsType[*Explanation](err); ok {
		return why.Reason
	}
	var dials []swarm.TransportError
	if dial, ok := errors.AsType[*swarm.DialError](err); ok {
		dials = dial.DialErrors
	}
	return reasonOf(err, dials)
}

// reasons are tried in order: the first whose error matches decides.
var reasons = []struct {
	err    error
	reason Reason
}{
	{errHostClosed, advice.HostClosed},
	{ErrStopped, advice.ClientClosed},
	{ErrModernPSKRequired, advice.NoAdmission},
	{ErrInvalid, advice.Invalid},
	{ErrLegacyPeer, advice.OldPeer},
	{ErrPSKMismatch, advice.PSKMismatch},
	{ErrPSKRequired, advice.PSKRequired},
	{ErrPSKTampered, advice.PSKTampered},
	{ErrPSKReplayed, advice.PSKReplayed},
	{session.ErrVersion, advice.OtherVersion},
	{session.ErrUnsupported, advice.Unsupported},
	{ErrGoingAway, advice.GoingAway},
	{ErrNotServed, advice.NotServed},
	{swarm.ErrGaterDisallowedConnection, advice.Gated},
	{ErrNotAllowed, advice.NotAllowed},
	{network.ErrResourceLimitExceeded, advice.OwnLimit},
	{swarm.ErrNoGoodAddresses, advice.NoGoodAddress},
	{swarm.ErrNoAddresses, advice.NoAddress},
	{ErrRelayOnly, advice.RelayOnly},
}

// reasonOf returns why a peer was not reached. dials are those that have failed.
func reasonOf(err error, dials []swarm.TransportError) Reason {
	if err == nil {
		return advice.Reached
	}
	e, isTyped := errors.AsType[*Error](err)
	if isTyped && e.Op == "open" && !e.Remote && e.Code != codes.OK { // whatever the code is that the hook has chosen
		return advice.OwnHook
	}
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.reason
		}
	}
	if isTyped && e.Code == codes.Unavailable {
		return unavailableReason(e)
	}
	if r := dialsReason(dials); r != "" {
		return r
	}
	afterConnect := isTyped && (e.Op == "hello" || e.Op == "negotiate" || e.Op == "open stream")
	switch {
	case isMismatch(err):
		return advice.OtherPeer
	case errors.Is(err, routing.ErrNotFound):
		return advice.NoAddress
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		if afterConnect {
			return advice.Silent
		}
		return advice.NoAnswer
	case errors.Is(err, context.Canceled):
		return advice.Cancelled
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, network.ErrNoConn):
		return advice.ConnectionLost
	case errors.Is(err, ErrUnreachable):
		return advice.Unreachable
	}
	return advice.Failed
}

// unavailableReason returns the reason for an error with codes.Unavailable.
func unavailableReason(e *Error) Reason {
	reset, isReset := errors.AsType[*network.StreamError](e)
	switch {
	case isReset && reset.ErrorCode == network.StreamResourceLimitExceeded, !e.Remote:
		return advice.PeerLimit
	case strings.Contains(e.Text, "share of"):
		return advice.PeerShare
	}
	return advice.PeerFull
}

// dialsReason returns why these dials of a peer have failed, or "" if they do not tell.
func dialsReason(all []swarm.TransportError) Reason {
	each := func(is func(swarm.TransportError) bool) bool {
		return len(all) > 0 && !slices.ContainsFunc(all, func(e swarm.TransportError) bool { return !is(e) })
	}
	some := func(is func(swarm.TransportError) bool) bool { return slices.ContainsFunc(all, is) }
	isLAN := func(e swarm.TransportError) bool { return isLocalAddr(e.Address) }
	relay := func(status ...pb.Status) bool {
		return some(func(e swarm.TransportError) bool { return answers(e, status...) })
	}
	switch {
	case each(func(e swarm.TransportError) bool { return isSocketAddr(e.Address) }):
		return advice.NoSocket
	case relay(pb.Status_NO_RESERVATION, pb.Status_CONNECTION_FAILED):
		return advice.NotAtRelay
	case relay(pb.Status_RESOURCE_LIMIT_EXCEEDED):
		return advice.RelayFull
	case relay(pb.Status_PERMISSION_DENIED):
		return advice.RelayDenies
	case some(func(e swarm.TransportError) bool { return isMismatch(e.Cause) }):
		return advice.OtherPeer
	case some(isCutByRelay):
		return advice.RelaySpent
	case each(func(e swarm.TransportError) bool { return isRefused(e) || isSilentBesideRefusal(e, all) }):
		return advice.NotListening
	case each(func(e swarm.TransportError) bool { return isCircuit(e.Address) || isLAN(e) }):
		if some(func(e swarm.TransportError) bool { return isCircuit(e.Address) }) {
			return advice.RelayGone
		}
		return advice.OtherNetwork
	case each(func(e swarm.TransportError) bool { return isFarUDP(e.Address) || isLAN(e) }):
		return advice.NoAnswerUDP
	case some(func(e swarm.TransportError) bool { return isUnanswered(e.Cause) }):
		return advice.NoAnswer
	case len(all) > 0:
		return advice.Unreachable
	}
	return ""
}

// answers reports whether a relay refused a connection with one of these statuses. libp2p only has their texts.
func answers(e swarm.TransportError, status ...pb.Status) bool {
	return isCircuit(e.Address) && e.Cause != nil && slices.ContainsFunc(status, func(s pb.Status) bool {
		return strings.Contains(e.Cause.Error(), s.String())
	})
}

// isRefused reports whether nothing listened at the address.
func isRefused(e swarm.TransportError) bool { return errors.Is(e.Cause, syscall.ECONNREFUSED) }

// isSilentBesideRefusal reports whether a dial over UDP timed out at an IP address that has refused one of all dials. A host with nothing at a port
// refuses TCP, and QUIC does not learn of it.
func isSilentBesideRefusal(e swarm.TransportError, all []swarm.TransportError) bool {
	ip, err := manet.ToIP(e.Address)
	if _, no := e.Address.ValueForProtocol(ma.P_UDP); err != nil || no != nil || isCircuit(e.Address) || !isUnanswered(e.Cause) {
		return false
	}
	return slices.ContainsFunc(all, func(other swarm.TransportError) bool {
		at, err := manet.ToIP(other.Address)
		return err == nil && at.Equal(ip) && isRefused(other)
	})
}

// isCutByRelay reports whether a relayed connection ended during its handshakes. libp2p has no error value for that.
func isCutByRelay(e swarm.TransportError) bool {
	if !isCircuit(e.Address) || e.Cause == nil || isUnanswered(e.Cause) {
		return false
	}
	text := e.Cause.Error()
	return strings.Contains(text, "failed to negotiate") && !strings.Contains(text, "error opening") // of the way to the relay
}

// isUnanswered reports whether a dial timed out. QUIC's own timeouts do not match context.DeadlineExceeded.
func isUnanswered(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

// isMismatch reports whether another peer answered at the address.
func isMismatch(err error) bool {
	_, ok := errors.AsType[sec.ErrPeerIDMismatch](err)
	return ok
}

func isSocketAddr(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_UNIX)
	return err == nil
}

// isLocalAddr reports whether an address is one of a local network, and not of this machine or one link.
func isLocalAddr(a ma.Multiaddr) bool {
	ip, err := manet.ToIP(a)
	return err == nil && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() && manet.IsPrivateAddr(a)
}

// isFarUDP reports whether an address is one of UDP, not through a relay, on another machine.
func isFarUDP(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_UDP)
	return err == nil && !manet.IsIPLoopback(a) && !isCircuit(a)
}

// byOf returns the side that refused, or "".
func byOf(r Reason, err error) string {
	switch r {
	case advice.NotAtRelay, advice.RelayFull, advice.RelayDenies, advice.RelayGone, advice.RelaySpent:
		return byRelay
	case advice.Invalid, advice.Self, advice.NoAdmission, advice.ClientClosed, advice.HostClosed, advice.Gated, advice.OwnLimit, advice.RelayOnly,
		advice.NoGoodAddress, advice.OwnHook:
		return byLocal
	case advice.PeerLimit, advice.PeerFull, advice.PeerShare, advice.OldPeer, advice.NotServed, advice.GoingAway:
		return byPeer
	}
	for next := err; next != nil; {
		e, ok := errors.AsType[*Error](next)
		if !ok {
			break
		}
		if e.Remote {
			return byPeer
		}
		next = e.Err
	}
	return ""
}

// reachesItself reports whether a dial has led back to the host itself.
func reachesItself(own peer.ID, dials []dialed) bool {
	return slices.ContainsFunc(dials, func(d dialed) bool {
		mismatch, ok := errors.AsType[sec.ErrPeerIDMismatch](d.cause)
		return ok && mismatch.Actual == own || errors.Is(d.cause, swarm.ErrDialToSelf)
	})
}
