package peerlane

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/pause"
)

// Dial connects to a peer if needed and opens a conn on a tag, as a zero Dialer does: over a direct connection, or a relay without limits.
// The returned conn is a *Conn. In addition to the addresses in the host's peerstore, Dial uses those at which a Client on the same host
// has reached the peer.
//
// A nil error means that the protocol was negotiated: the peer serves the tag, and its Accept gets a conn even if nothing is written. The
// peer may still refuse the conn after the negotiation, because of libp2p's limits or a full backlog. Such a refusal is the error of the
// first Read or Write, matches ErrUnavailable, and has the Outcome Rejected.
//
// libp2p's limits rarely refuse a conn in that way, because Dial counts the conns of this host to the peer on the tag. At 64 it waits until
// one has ended on both sides, or opens further ones, one at a time, while the peer accepts them. If ctx or Dialer.Timeout ends first, it
// fails with ErrUnavailable. See ConnsPerPeer in package node to raise the limit.
//
// Dial fails with a *net.OpError around an *Error that matches ErrNotServed, ErrRelayOnly, ErrUnreachable, ErrUnavailable
// (a limit of either side), ErrInvalid, ErrStopped (the host is closed), or the ctx's error; its Outcome is NotSent or
// Rejected, and the cause is wrapped.
//
// Dialing the host's own Peer ID opens an in-process pipe to its own listener.
func Dial(ctx context.Context, h host.Host, pid peer.ID, tag protocol.ID) (net.Conn, error) {
	c, err := (&Dialer{Host: h, Tag: tag}).Dial(ctx, pid)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Defaults of a Dialer.
const (
	defaultDialTimeout = 30 * time.Second // of Dialer.Timeout
	defaultDirectWait  = 5 * time.Second  // of Dialer.DirectWait
)

// A Dialer opens conns to peers. Use does not change its fields. A Dialer may be copied and used concurrently.
type Dialer struct {
	// Host is the libp2p host to dial from. It must not be nil.
	Host host.Host

	// Tag is the protocol ID to open. It must not be empty.
	Tag protocol.ID

	// Path sets which paths are acceptable. If zero, PathAuto.
	Path PathPolicy

	// DirectWait bounds the wait for a direct connection to a peer that is connected over a relay only: see
	// PathPolicy. If zero, 5 s. If negative, it is invalid.
	DirectWait time.Duration

	// MinRelayData makes the Dialer refuse a limited relay that lets through fewer bytes each way, with ErrRelayOnly. If zero, any relay
	// will do. If negative, it is invalid.
	MinRelayData int64

	// Timeout bounds the whole dial: connecting, waiting for a direct connection, waiting for another conn to end where the peer's limit is
	// reached, and negotiating. A ctx that ends earlier takes precedence. If zero, 30 s. If negative, only the ctx bounds it.
	Timeout time.Duration

	// AddrStyle is the style of the conns' LocalAddr and RemoteAddr. If zero, AddrPeer.
	AddrStyle AddrStyle

	chosen func(peer.ID) network.Conn // the connection to open a stream on, if it is still there; nil, or returns nil: libp2p's choice

	step  time.Duration // bounds opening a stream on a connection, and negotiating; 0: only the ctx does
	avoid peer.ID       // a relay that is dialed through last, because it has failed; "": none
	lost  bool          // a session with the peer has lost its connection: dials take turns
	again time.Duration // bounds one of several dials of a peer without a connection: see dialAgain; 0: there is one dial
}

func (d Dialer) withDefaults() Dialer {
	if d.Timeout == 0 {
		d.Timeout = defaultDialTimeout
	}
	if d.DirectWait == 0 {
		d.DirectWait = defaultDirectWait
	}
	return d
}

func (d *Dialer) validate(tags []protocol.ID) error {
	switch {
	case d.Host == nil:
		return invalidf("Dialer.Host: nil")
	case len(tags) == 0:
		return invalidf("Dialer.Tag: no tag")
	case d.DirectWait < 0:
		return invalidf("Dialer.DirectWait: %v is negative", d.DirectWait)
	case d.MinRelayData < 0:
		return invalidf("Dialer.MinRelayData: %d is negative", d.MinRelayData)
	}
	for _, tag := range tags {
		if err := validateTag("Dialer.Tag", tag); err != nil {
			return err
		}
	}
	if err := d.Path.validate("Dialer.Path"); err != nil {
		return err
	}
	return d.AddrStyle.validate("Dialer.AddrStyle")
}

// maxTagLen is the longest tag that multistream carries: 1024 bytes with the newline.
const maxTagLen = 1023

// validateTag refuses a tag that multistream cannot carry or would take for its own messages.
func validateTag(field string, tag protocol.ID) error {
	switch {
	case tag == "":
		return invalidf("%s: empty", field)
	case len(tag) > maxTagLen:
		return invalidf("%s: %d bytes, more than %d", field, len(tag), maxTagLen)
	case strings.ContainsRune(string(tag), '\n'), tag == "na", tag == multistream.ProtocolID:
		return invalidf("%s: %q is reserved by multistream", field, tag)
	}
	return nil
}

// Dial opens a conn to a peer on d.Tag. It fails as the function Dial does.
func (d *Dialer) Dial(ctx context.Context, pid peer.ID) (*Conn, error) {
	c, _, err := d.openPort(ctx, pid, 0, true, d.Tag)
	return c, err
}

// DialContext is Dial for code that has a network and an address: http.Transport.DialContext, grpc.WithContextDialer. The network is "tcp",
// "libp2p", "tcp4" or "tcp6". The address is "<peer id>" or "<peer id>:<port>", where the port only shows in RemoteAddr under AddrPeerPort.
// Where host names are lower-cased on the way, use the Peer ID's CID form, peer.ToCid(id).
func (d *Dialer) DialContext(ctx context.Context, netw, address string) (net.Conn, error) {
	switch netw {
	case "tcp", "tcp4", "tcp6", Network:
	default:
		return nil, &net.OpError{Op: "dial", Net: netw, Err: net.UnknownNetworkError(netw)}
	}
	pid, port, err := splitAddr(address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: Network, Err: err}
	}
	c, _, err := d.openPort(ctx, pid, port, true, d.Tag)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// open opens a stream on the first of tags that the peer serves, and returns the conn and that tag.
func (d *Dialer) open(ctx context.Context, pid peer.ID, tags ...protocol.ID) (*Conn, protocol.ID, error) {
	return d.openPort(ctx, pid, 0, false, tags...)
}

// openPort is open with the port that the conn's RemoteAddr shows. If wait is set, it waits for a slot at the peer, and its error carries an
// Explanation.
func (d *Dialer) openPort(
	ctx context.Context, pid peer.ID, port uint16, wait bool, tags ...protocol.ID,
) (_ *Conn, _ protocol.ID, err error) {
	if err := d.validate(tags); err != nil {
		return nil, "", d.dialError(pid, err)
	}
	if err := pid.Validate(); err != nil {
		return nil, "", d.dialError(pid, invalidf("peer: %w", err))
	}
	use := d.withDefaults()
	if use.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, use.Timeout)
		defer cancel()
	}
	if wait { // the others are those of a Client, which explains those that open a session
		var t *trail
		ctx, t = withTrail(ctx)
		defer func() {
			err = carry(err, func() *Explanation { return use.explain(pid, protocol.ID(tagText(tags)), nil, t, err) })
		}()
	}
	if isClosed(hostDone(use.Host)) {
		return nil, "", d.dialError(pid, dialFailed(ctx, "connect", hostClosed("connect", nil)))
	}
	switch {
	case pid == use.Host.ID():
		return use.openLoopback(ctx, port, tags)
	case wait:
		return use.openSlot(ctx, pid, port, tags)
	}
	return use.openRemote(ctx, pid, port, tags)
}

// maxOpens is how many times openRemote tries when connections prove dead. A connection may do so when the stream is opened, again while
// libp2p removes it from its list or ends the dial that made it, which the next dial joins, or only when the stream is used.
const maxOpens = 4

// tryWait is the longest wait before the third try; the fourth may wait twice as long.
const tryWait = 100 * time.Millisecond

// awaitTry waits before another try, if the last one failed with err because the peer closed a direct connection at once: libp2p does so if 16 QUIC
// connections are waiting to be accepted. The waits are random, so that a burst of dialers spreads out. It returns ctx's error if that ends before.
func (d *Dialer) awaitTry(ctx context.Context, pid peer.ID, try int, err error) error {
	if try < 3 || !errors.Is(err, errConnGone) || !hasAddr(d.addrs(pid), isDirect) {
		return ctx.Err()
	}
	most := time.Duration(try-2) * tryWait
	return pause.For(ctx, most/4+rand.N(most*3/4))
}

// openRemote tries again when a connection proves dead: one that the other side left silently looks alive until it is used.
func (d *Dialer) openRemote(
	ctx context.Context, pid peer.ID, port uint16, tags []protocol.ID,
) (*Conn, protocol.ID, error) {
	var dead *network.ConnError // may arrive before the connection itself reports that it is closed
	for try := 1; ; try++ {
		last := try == maxOpens
		s, err := d.openStream(ctx, pid)
		gone := errors.Is(err, network.ErrNoConn) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &dead)
		if gone && !last && d.awaitTry(ctx, pid, try+1, err) == nil {
			continue
		}
		if err != nil {
			return nil, "", d.dialError(pid, err)
		}
		trailOf(ctx).on(s.Conn())
		stepCtx, cancel := d.bound(ctx)
		tag, err := negotiate(stepCtx, s, tags)
		if err == nil {
			cancel()
			bookOf(d.Host).remember(s.Conn())
			return newConn(s, tag, connOptions{style: d.AddrStyle, port: port}), tag, nil
		}
		if last || stepCtx.Err() != nil || !s.Conn().IsClosed() && !errors.As(err, &dead) {
			err = d.dialError(pid, negotiateFailed(stepCtx, err, tags))
			cancel()
			return nil, "", err
		}
		cancel()
		_ = s.Conn().Close() // it is dead, and must not be found again
	}
}

// bound returns a ctx for one step on an existing connection.
func (d *Dialer) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if d.step > 0 {
		return context.WithTimeout(ctx, d.step)
	}
	return context.WithCancel(ctx)
}

// negotiate settles on one of tags, and resets the stream if it cannot. It returns as soon as ctx ends. Host.NewStream would postpone the
// negotiation to the first Read or Write where the peer is known to serve the tag.
func negotiate(ctx context.Context, s network.Stream, tags []protocol.ID) (protocol.ID, error) {
	stop := context.AfterFunc(ctx, func() {
		_ = s.SetDeadline(deadline.Past) // a full send queue does not notice a reset
		_ = s.ResetWithError(network.StreamProtocolNegotiationFailed)
	})
	tag, err := selectOneOf(tags, s)
	if !stop() {
		return "", ctx.Err()
	}
	if err != nil {
		_ = s.ResetWithError(network.StreamProtocolNegotiationFailed)
		return "", err
	}
	if err := s.SetProtocol(tag); err != nil {
		_ = s.ResetWithError(network.StreamResourceLimitExceeded)
		return "", err
	}
	return tag, nil
}

// negotiateFailed returns the typed error for an error of negotiate.
func negotiateFailed(ctx context.Context, err error, tags []protocol.ID) *Error {
	var out *Error
	switch {
	case ctx.Err() != nil, errors.Is(err, network.ErrResourceLimitExceeded):
		out = dialFailed(ctx, "negotiate", err)
	case errors.Is(err, multistream.ErrNotSupported[protocol.ID]{}):
		out = dialFailed(ctx, "negotiate", notServed(tags))
	default:
		out = dialFailed(ctx, "negotiate", streamBroken("negotiate", err))
	}
	out.Link = tagText(tags)
	return out
}

// dialError wraps err the way package net does, and fills in the peer.
func (d *Dialer) dialError(pid peer.ID, err error) error {
	if typed, ok := errors.AsType[*Error](err); ok {
		typed.Peer = pid.String()
	}
	out := &net.OpError{Op: "dial", Net: Network, Addr: Addr{Peer: pid}, Err: err}
	if d.Host != nil {
		out.Source = Addr{Peer: d.Host.ID()}
	}
	return out
}

// notServed returns the error for a peer that serves none of tags.
func notServed(tags []protocol.ID) *Error {
	return &Error{Op: "negotiate", Link: tagText(tags), Remote: true, Code: codes.NotFound, Err: ErrNotServed}
}

// tagText returns the application's tag among tags, of which the first may be that of its sessions.
func tagText(tags []protocol.ID) string { return strings.TrimSuffix(string(tags[0]), sessionSuffix) }
