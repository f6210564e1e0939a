package peerlane

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/punch"
)

// A PathPolicy sets the paths over which a Dialer opens conns. No policy waits when a direct connection is impossible: the answer then
// comes at once.
type PathPolicy uint8

// The path policies. "A direct connection is possible" means that the peer has a direct address that has not been tried yet, or that both
// sides can punch holes (the peer speaks DCUtR, and this host does too or has a public address).
const (
	// PathAuto takes a direct connection or a relay without limits. If there is only a limited relay and a direct connection is possible,
	// it waits up to DirectWait for one, and then fails with ErrRelayOnly: it never returns a conn that a relay cuts after 128 KiB unless
	// asked to.
	PathAuto PathPolicy = 0
	// DirectOnly takes a direct connection, dials one if there is none, and never waits for a hole punch. If the peer has only relays, it
	// fails with ErrRelayOnly.
	DirectOnly PathPolicy = 1
	// PreferDirect takes a direct connection. If there are only relays and a direct connection is possible, it waits up to DirectWait for
	// one. Then it takes the relay, limited or not.
	PreferDirect PathPolicy = 2
	// AllowRelay takes the best connection there is, a limited relay included, and does not wait.
	AllowRelay PathPolicy = 3
)

func (p PathPolicy) validate(field string) error {
	if p > AllowRelay {
		return invalidf("%s: unknown path policy %d", field, p)
	}
	return nil
}

var policyNames = [...]string{
	PathAuto: "PathAuto", DirectOnly: "DirectOnly", PreferDirect: "PreferDirect", AllowRelay: "AllowRelay",
}

// String returns the name of the policy's constant.
func (p PathPolicy) String() string {
	if int(p) < len(policyNames) {
		return policyNames[p]
	}
	return fmt.Sprintf("PathPolicy(%d)", uint8(p))
}

// wanted reports whether the policy takes path without waiting for a better one.
func (p PathPolicy) wanted(path Path) bool {
	switch p {
	case DirectOnly, PreferDirect:
		return !path.Relayed
	case AllowRelay:
		return true
	default:
		return !path.Limited
	}
}

// accepts reports whether the dialer takes path once no better one is available.
func (d *Dialer) accepts(path Path) bool {
	if d.Path.wanted(path) || d.Path == PreferDirect {
		return !path.Limited || path.RelayData == 0 || path.RelayData >= d.MinRelayData
	}
	return false
}

// openStream returns a stream, not yet negotiated, over a path that the policy accepts. It opens the stream on the connection that was chosen,
// or that the network prefers, and then checks the path: checking first would race with connections that come and go.
func (d *Dialer) openStream(ctx context.Context, pid peer.ID) (network.Stream, error) {
	if err := d.connect(ctx, pid); err != nil {
		return nil, err
	}
	ctx, cancel := d.bound(ctx)
	defer cancel()
	sctx := network.WithNoDial(network.WithAllowLimitedConn(ctx, "peerlane"), "connected")
	s, err := d.newStream(sctx, pid)
	if err != nil {
		return nil, d.saysFull(pid, openFailed(ctx, err))
	}
	path := pathOf(s.Conn())
	if d.accepts(path) {
		return s, nil
	}
	_ = s.ResetWithError(resetCode(codes.Cancelled))
	if d.Path.wanted(path) {
		return nil, d.relayOnly(pid, nil)
	}
	return nil, d.relayOnly(pid, errConnGone) // of two connections, the better one
}

// newStream opens a stream on the chosen connection, or where there is none, or a better kind of connection has come, on the one that the
// network prefers.
func (d *Dialer) newStream(ctx context.Context, pid peer.ID) (network.Stream, error) {
	if d.chosen != nil {
		c := d.chosen(pid)
		if c != nil && !c.IsClosed() && d.isBestKind(c) {
			s, err := c.NewStream(ctx)
			if err == nil || !c.IsClosed() {
				return s, err
			}
		}
	}
	return d.Host.Network().NewStream(ctx, pid)
}

// isBestKind reports whether no connection to c's peer is of a better kind, as a direct one is beside a relayed.
func (d *Dialer) isBestKind(c network.Conn) bool {
	path := pathOf(c).forChoice()
	return !anyPath(d.paths(c.RemotePeer()), func(other Path) bool { return other.forChoice().Less(path) })
}

// errConnGone means that an existing connection closed before it could be used. It makes openRemote try again.
var errConnGone = fmt.Errorf("the connection closed: %w", network.ErrNoConn)

func openFailed(ctx context.Context, err error) *Error {
	var se *network.StreamError
	var ce *network.ConnError
	if errors.As(err, &se) || errors.As(err, &ce) {
		return dialFailed(ctx, "open stream", streamBroken("open stream", err))
	}
	if errors.Is(err, network.ErrNoConn) {
		err = fmt.Errorf("%w: the connection closed: %w", ErrUnreachable, err)
	}
	return dialFailed(ctx, "open stream", err)
}

const (
	quicStreams = 256 // that either side may have open on a QUIC connection, which libp2p sets; a further one waits
	quicEnding  = 16  // of them at most have ended here, and not yet at the peer
)

// saysFull adds to the timeout of a stream's opening that the connection has all streams open that it may have.
func (d *Dialer) saysFull(pid peer.ID, err *Error) *Error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	for _, c := range d.Host.Network().ConnsToPeer(pid) {
		if transport := transportOf(c); transport != "quic-v1" && transport != "webtransport" {
			continue
		}
		n := 0
		for _, s := range c.GetStreams() {
			if s.Stat().Direction == network.DirOutbound {
				n++
			}
		}
		if n >= quicStreams-quicEnding {
			err.Err = fmt.Errorf("%w: a QUIC connection carries %d streams at most, and %d are open: close some, or use calls and streams of a session",
				err.Err, quicStreams, n)
			return err
		}
	}
	return err
}

// connect opens a connection to the peer that the policy accepts, if there is none.
func (d *Dialer) connect(ctx context.Context, pid peer.ID) error {
	have := d.paths(pid)
	if anyPath(have, d.Path.wanted) {
		return nil
	}
	if len(have) == 0 {
		d.clearBackoff(pid)
		for relay := range relaysIn(d.addrs(pid)) { // the network may be back, or another
			d.clearBackoff(relay)
		}
	}
	if d.Path == DirectOnly {
		return d.connectDirect(ctx, pid)
	}
	dial := d.dial
	switch {
	case d.again > 0 && len(have) == 0:
		dial = d.dialAgain
	case d.lost && len(have) == 0:
		dial = d.inTurn(d.dial)
	}
	if err := dial(network.WithAllowLimitedConn(ctx, "peerlane"), pid); err != nil {
		return connectFailed(ctx, err)
	}
	have = d.paths(pid)
	if anyPath(have, d.Path.wanted) {
		return nil
	}
	var gone error
	if len(have) > 0 {
		if d.awaitDirect(ctx, pid) {
			gone = errConnGone // unless it is there
		}
		have = d.paths(pid)
	}
	switch {
	case ctx.Err() != nil:
		return connectFailed(ctx, ctx.Err())
	case anyPath(have, d.accepts):
		return nil
	case len(have) == 0: // the connection closed again at once
		return connectFailed(ctx, errConnGone)
	}
	return d.relayOnly(pid, gone)
}

// connectDirect dials the peer's direct addresses.
func (d *Dialer) connectDirect(ctx context.Context, pid peer.ID) error {
	relayed := len(d.paths(pid)) > 0 || hasAddr(d.addrs(pid), isCircuit)
	dial := d.dialDirect
	if d.lost && len(d.paths(pid)) == 0 {
		dial = d.inTurn(dial)
	}
	err := dial(ctx, pid)
	if err != nil && relayed && ctx.Err() == nil {
		return d.relayOnly(pid, err)
	}
	return connectFailed(ctx, err)
}

// awaitDirect waits until there is a direct connection, until DirectWait or ctx is over, or until none is possible any more. It reports
// whether one has come; it may have closed again.
func (d *Dialer) awaitDirect(ctx context.Context, pid peer.ID) bool {
	dialable := hasAddr(d.addrs(pid), isDirect)
	if d.Path == AllowRelay || !dialable && !d.canPunch(pid) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, d.DirectWait)
	defer cancel()
	if s := punch.Of(d.Host); s != nil && d.canPunch(pid) {
		return s.Direct(ctx, pid) == nil
	}
	came, stop := d.watchConns(pid)
	defer stop()
	if anyPath(d.paths(pid), d.Path.wanted) {
		return true
	}
	dialed := make(chan error, 1) // an address that does not answer does not keep a punched connection waiting
	if dialable {
		go func() { dialed <- d.dialDirect(ctx, pid) }() // ends with ctx
	}
	for {
		select {
		case <-came:
			return true
		case err := <-dialed:
			if err == nil || !d.canPunch(pid) {
				return err == nil
			}
		case <-ctx.Done():
			return false
		}
	}
}

// watchConns returns a channel that receives when there is a new connection to the peer that the policy accepts without waiting.
func (d *Dialer) watchConns(pid peer.ID) (came <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	watch := &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
		if c.RemotePeer() != pid || !d.Path.wanted(pathOf(c)) {
			return
		}
		select {
		case ch <- struct{}{}:
		default:
		}
	}}
	d.Host.Network().Notify(watch)
	return ch, func() { d.Host.Network().StopNotify(watch) }
}

// canPunch reports whether hole punching or connection reversal may give a direct connection. It may for a peer that was not identified
// yet.
func (d *Dialer) canPunch(pid peer.ID) bool {
	protos, err := d.Host.Peerstore().GetProtocols(pid)
	if err != nil || len(protos) == 0 {
		return true
	}
	remote, err := d.Host.Peerstore().SupportsProtocols(pid, holepunch.Protocol, punch.Protocol)
	if err != nil || len(remote) == 0 {
		return false
	}
	if slices.Contains(d.Host.Mux().Protocols(), holepunch.Protocol) {
		return true
	}
	return hasAddr(d.Host.Addrs(), func(a ma.Multiaddr) bool { return manet.IsPublicAddr(a) && isDirect(a) })
}

// paths returns the paths of the live connections to the peer.
func (d *Dialer) paths(pid peer.ID) []Path {
	var out []Path
	for _, c := range d.Host.Network().ConnsToPeer(pid) {
		if !c.IsClosed() {
			out = append(out, pathOf(c))
		}
	}
	return out
}

func anyPath(paths []Path, ok func(Path) bool) bool {
	return slices.ContainsFunc(paths, ok)
}

// relayOnly returns the error for a peer without a path that the policy accepts. The error names the relay, its limits, and a remedy.
func (d *Dialer) relayOnly(pid peer.ID, cause error) error {
	why := "only relay addresses are known"
	for _, p := range d.paths(pid) {
		if p.Relayed {
			why = describeRelay(p)
			break
		}
	}
	const hint = "AllowRelay or PreferDirect would take a relay"
	err := fmt.Errorf("%w: %s; Dialer.Path is %v: %s", ErrRelayOnly, why, d.Path, hint)
	if d.MinRelayData > 0 {
		err = fmt.Errorf("%w; Dialer.MinRelayData is %d", err, d.MinRelayData)
	}
	if cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return dialFailed(context.Background(), "connect", err)
}

func describeRelay(p Path) string {
	if !p.Limited {
		return fmt.Sprintf("relay %s, no limits", p.Relay)
	}
	return fmt.Sprintf("relay %s, limited to %d bytes each way and %v", p.Relay, p.RelayData, p.RelayDuration)
}

// connectFailed returns the typed error for a failed connect, or nil for nil.
func connectFailed(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, swarm.ErrSwarmClosed) {
		return dialFailed(ctx, "connect", hostClosed("connect", err))
	}
	if errors.Is(err, swarm.ErrGaterDisallowedConnection) {
		return dialFailed(ctx, "connect", &Error{Op: "connect", Code: codes.NotAllowed, Err: err})
	}
	return dialFailed(ctx, "connect", fmt.Errorf("%w: %w", ErrUnreachable, err))
}

func hasAddr(addrs []ma.Multiaddr, is func(ma.Multiaddr) bool) bool {
	return slices.ContainsFunc(addrs, is)
}

func isCircuit(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

func isDirect(a ma.Multiaddr) bool { return !isCircuit(a) }
