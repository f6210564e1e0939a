package peerlane

import (
	"cmp"
	"context"
	"errors"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/advice"
	"github.com/peerlane/peerlane/internal/origin"
	"github.com/peerlane/peerlane/internal/punch"
	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/session"
)

// Bounds on the lists of an Explanation.
const (
	maxExplainedAddrs  = 16
	maxExplainedRelays = 8
	maxExplainedTags   = 16
)

// explain returns the Explanation of an attempt that ended with err. It collects known facts, and sends nothing.
func (d *Dialer) explain(pid peer.ID, tag protocol.ID, keys *psk.Keyring, t *trail, err error) *Explanation {
	e := &Explanation{Version: explanationVersion, Taken: time.Now().UTC().Round(0), Host: d.Host.ID().String(), Peer: pid.String(),
		Tag: printable(string(tag)), Keys: keyIDs(keys), Took: registry.Duration(time.Since(t.began))}
	dials, conn := t.all()
	e.know(d, pid)
	e.relays(d, pid, conn)
	for _, dial := range dials {
		e.Dials = append(e.Dials, dial.explained())
	}
	if err == nil {
		e.Reached, e.Reason = true, advice.Reached
		e.What = advice.Of(e.Reason).What
		return e
	}
	e.Reason, e.Text = reasonOf(err, ofPeer(dials)), printable(lastWords(err))
	e.refine(d, pid, tag, conn, dials)
	words := advice.Of(e.Reason)
	e.What, e.Do, e.By = words.What, words.Do, byOf(e.Reason, err)
	switch {
	case e.Reason == advice.PSKRequired && len(e.Keys) > 0:
		e.What += ": this one"
	case e.Reason == advice.PSKRequired:
		e.What += ": the peer"
	}
	e.Partial = isCutShort(e.Reason, err)
	if conn != nil {
		e.Path = pathOf(conn).String()
	}
	e.limit(err, dials)
	return e
}

// isCutShort reports whether an attempt ended because its time was up, and not because all addresses had failed.
func isCutShort(r Reason, err error) bool {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Remote || e.Code != codes.Timeout && e.Code != codes.Cancelled {
		return false
	}
	return r == advice.NoAnswer || r == advice.StaleAddress || r == advice.Cancelled
}

// refine replaces the reason by a more exact one, if facts about the peer allow it.
func (e *Explanation) refine(d *Dialer, pid peer.ID, tag protocol.ID, conn network.Conn, dials []dialed) {
	known := bookOf(d.Host).addrs(pid)
	switch e.Reason {
	case advice.NoAnswer, advice.NoAnswerUDP, advice.OtherNetwork, advice.Unreachable:
		if len(known) > 0 {
			e.Reason = advice.StaleAddress
		}
	case advice.OtherPeer, advice.NoGoodAddress:
		if reachesItself(d.Host.ID(), dials) {
			e.Reason = advice.Self
		}
	case advice.NotServed:
		switch {
		case pid == d.Host.ID():
			e.Reason = advice.Self
		case slices.ContainsFunc(protocolsOf(d, pid), func(p protocol.ID) bool { return isOtherVersion(p, tag) }):
			e.Reason = advice.OtherVersion
		}
	case advice.ConnectionLost, advice.Silent:
		if conn != nil && pathOf(conn).Limited {
			e.Reason = advice.RelaySpent
		}
	}
}

// know adds the peer's addresses, software and tags.
func (e *Explanation) know(d *Dialer, pid peer.ID) {
	book, announced := bookOf(d.Host).addrs(pid), announcedBy(d, pid)
	origins := origin.Of(d.Host.Peerstore(), d.Host.ID())
	from := make(map[string][]string)
	var addrs []string
	for _, a := range d.addrs(pid) {
		text := printable(a.String())
		addrs = append(addrs, text)
		from[text] = origins.From(pid, a)
		if slices.ContainsFunc(announced, a.Equal) {
			from[text] = append(from[text], "announced by the peer")
		}
		if slices.ContainsFunc(book, a.Equal) {
			from[text] = append(from[text], "reached")
		}
	}
	slices.SortFunc(addrs, func(a, b string) int { // the best known ones first
		return cmp.Or(cmp.Compare(len(from[b]), len(from[a])), cmp.Compare(a, b))
	})
	e.MoreAddrs = max(0, len(addrs)-maxExplainedAddrs)
	for _, a := range addrs[:len(addrs)-e.MoreAddrs] {
		known := strings.Join(from[a], ", ")
		e.Addrs = append(e.Addrs, ExplainedAddr{a, cmp.Or(known, "peerstore of the host")})
	}
	if agent, err := d.Host.Peerstore().Get(pid, "AgentVersion"); err == nil {
		text, _ := agent.(string)
		e.Agent = printable(text)
	}
	e.Serves = tagsOf(protocolsOf(d, pid))
}

// announcedBy returns the addresses that a peer has signed.
func announcedBy(d *Dialer, pid peer.ID) []ma.Multiaddr {
	book, ok := peerstore.GetCertifiedAddrBook(d.Host.Peerstore())
	if !ok {
		return nil
	}
	envelope := book.GetPeerRecord(pid)
	if envelope == nil {
		return nil
	}
	record, err := envelope.Record()
	if err != nil {
		return nil
	}
	if signed, ok := record.(*peer.PeerRecord); ok {
		return signed.Addrs
	}
	return nil
}

// protocolsOf returns the protocols that a peer has reported, or those of the host if it is the peer.
func protocolsOf(d *Dialer, pid peer.ID) []protocol.ID {
	switch pid {
	case "": // libp2p's peerstore panics
		return nil
	case d.Host.ID():
		return d.Host.Mux().Protocols()
	}
	all, _ := d.Host.Peerstore().GetProtocols(pid) // without an answer there are none
	return all
}

// notTags are the beginnings of protocols that are libp2p's own, or package node's.
var notTags = []string{"/ipfs/", "/libp2p/", "/p2p/", "/peerlane/punch", "/peerlane/netcheck/", "/peerlane/kad/"}

// tagsOf returns the tags among the protocols of a peer, in their order.
func tagsOf(protocols []protocol.ID) []string {
	var all []string
	for _, p := range protocols {
		tag := strings.TrimSuffix(string(p), sessionSuffix)
		if slices.ContainsFunc(notTags, func(begin string) bool { return strings.HasPrefix(tag, begin) }) {
			continue
		}
		if text := printable(tag); !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	slices.Sort(all)
	if len(all) > maxExplainedTags {
		all = append(all[:maxExplainedTags], "...")
	}
	return all
}

// isOtherVersion reports whether p is another version of the protocol of sessions on tag.
func isOtherVersion(p, tag protocol.ID) bool {
	version, ok := strings.CutPrefix(string(p), string(tag)+"/peerlane/")
	return ok && version != "" && p != sessionTag(tag)
}

// relays adds the relays that lead to the peer, and the attempts to punch holes. conn is the last connection of the attempt, or nil.
func (e *Explanation) relays(d *Dialer, pid peer.ID, conn network.Conn) {
	all := make(map[peer.ID]*ExplainedRelay)
	for relay := range relaysIn(d.addrs(pid)) {
		all[relay] = &ExplainedRelay{}
	}
	conns := d.Host.Network().ConnsToPeer(pid)
	if conn != nil && !slices.Contains(conns, conn) {
		conns = append(slices.Clone(conns), conn)
	}
	for _, c := range conns {
		p := pathOf(c)
		if !p.Relayed {
			continue
		}
		if all[p.Relay] == nil {
			all[p.Relay] = &ExplainedRelay{}
		}
		r := all[p.Relay]
		r.Used, r.Data, r.Left, r.Duration = true, p.RelayData, p.RelayLeft, registry.Duration(p.RelayDuration)
	}
	for relay, r := range all {
		r.Relay, r.Connected = relay.String(), d.isConnected(relay)
		e.Relays = append(e.Relays, *r)
	}
	slices.SortFunc(e.Relays, func(a, b ExplainedRelay) int { return strings.Compare(a.Relay, b.Relay) })
	e.Relays = e.Relays[:min(len(e.Relays), maxExplainedRelays)]
	if len(e.Relays) > 0 {
		e.punches(d, pid)
	}
}

// punches adds the attempts to find a direct path to a peer.
func (e *Explanation) punches(d *Dialer, pid peer.ID) {
	s := punch.Of(d.Host)
	if s == nil {
		e.Punching = punchingUnknown
		if origin.Of(d.Host.Peerstore(), d.Host.ID()) != nil { // of package node
			e.Punching = punchingOff
		}
		return
	}
	e.Punching = punchingOn
	for _, a := range s.Attempts(pid) {
		e.Punches = append(e.Punches, ExplainedPunch{a.At.UTC().Round(0), registry.Duration(a.Took), printable(a.Why)})
	}
}

// scopeRefusal matches the errors of libp2p's resource manager, and finds the scope and the refused resource.
var scopeRefusal = regexp.MustCompile(`(\S+): (cannot reserve [a-z ]+): resource limit exceeded`)

// limit adds the limit that was reached, if the reason is one.
func (e *Explanation) limit(err error, dials []dialed) {
	typed, ok := errors.AsType[*Error](err)
	if !ok {
		typed = &Error{}
	}
	l := &ExplainedLimit{By: e.By, Name: "unknown", Text: printable(typed.Text), Retry: registry.Duration(typed.RetryAfter)}
	switch e.Reason {
	case advice.OwnLimit, advice.PeerLimit:
		l.Name = "resource manager"
		if m := scopeRefusal.FindStringSubmatch(err.Error()); m != nil {
			l.Name, l.Text = printable(m[1]), m[2]
		}
	case advice.PeerFull, advice.PeerShare:
		for _, name := range []string{"sessions", "calls", "memory"} {
			if strings.Contains(typed.Text, name) {
				l.Name = name
				break
			}
		}
	case advice.RelayFull:
		l.Name = "connections"
		for _, d := range dials {
			if d.addr != nil && isCircuit(d.addr) {
				l.Text = printable(d.cause.Error())
			}
		}
	case advice.RelaySpent:
		l.Name = "bytes or time of a connection"
	default:
		return
	}
	e.Limit = l
}

// explained returns the dial as it is in an Explanation.
func (d dialed) explained() ExplainedDial {
	out := ExplainedDial{Relay: d.relay, At: d.at.UTC().Round(0), Took: registry.Duration(d.took), Times: d.times, Error: "no answer"}
	if d.addr != nil {
		out.Addr = printable(d.addr.String())
	}
	if !isUnanswered(d.cause) {
		out.Error = printable(d.cause.Error())
	}
	return out
}

// ofPeer returns the dials of the peer's addresses.
func ofPeer(dials []dialed) []swarm.TransportError {
	var all []swarm.TransportError
	for _, d := range dials {
		if d.addr != nil && !d.relay {
			all = append(all, swarm.TransportError{Address: d.addr, Cause: d.cause})
		}
	}
	return all
}

// lastWords returns the text of err without the peer and the dialed addresses, which other fields have.
func lastWords(err error) string {
	text := err.Error()
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		text = strings.Replace(text, op.Error(), op.Err.Error(), 1)
	}
	if dial, ok := errors.AsType[*swarm.DialError](err); ok && dial.Cause != nil {
		text = strings.Replace(text, dial.Error(), dial.Cause.Error(), 1)
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Peer != "" {
		text = strings.ReplaceAll(text, " at "+e.Peer, "")
	}
	return text
}

// carry adds an Explanation to err if it is or wraps an *Error without one, and returns err.
func carry(err error, why func() *Explanation) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Details == nil {
		e.Details = why()
	}
	return err
}

// carry adds an Explanation to the error of an attempt to open a session, and returns the error.
func (p *pool) carry(key poolKey, t *trail, err error) error {
	return carry(err, func() *Explanation { return p.dialer.explain(key.peer, key.tag, p.currentKeys(), t, err) })
}

// ExplainForDiagnostics is diagnostics.Explain. Programs have no use for it.
func (c *Client) ExplainForDiagnostics(ctx context.Context, pid, tag string) *Explanation {
	id, err := peer.Decode(pid)
	switch {
	case c == nil:
		err = invalidf("client: nil")
	case strings.HasPrefix(pid, "/"):
		err = invalidf("peer: an address, where its Peer ID alone is wanted; give the address to the host, as Node.Remember does")
	case err != nil:
		err = invalidf("peer: not a Peer ID: %w", err)
	default:
		err = validateTag("tag", protocol.ID(tag))
	}
	if err != nil {
		return (&Explanation{Peer: printable(pid), Tag: printable(tag)}).invalid(err)
	}
	return c.pool.explain(ctx, poolKey{id, protocol.ID(tag)})
}

// invalid completes the explanation of invalid arguments.
func (e *Explanation) invalid(err error) *Explanation {
	words := advice.Of(advice.Invalid)
	e.Version, e.Taken, e.Reason, e.By = explanationVersion, time.Now().UTC().Round(0), advice.Invalid, byLocal
	e.What, e.Do, e.Text, e.cause = words.What, words.Do, printable(err.Error()), err
	return e
}

// explain returns why a session of key can or cannot be opened. It pings an open session, or opens one and closes it.
func (p *pool) explain(ctx context.Context, key poolKey) *Explanation {
	ctx, t := withTrail(ctx)
	if s := p.attached(key); s != nil {
		if rtt, err := s.Ping(ctx); err == nil {
			return p.reached(key, t, PathOf(s), rtt)
		}
	}
	path, rtt, err := p.probe(ctx, key)
	if err == nil {
		return p.reached(key, t, path, rtt)
	}
	why := p.dialer.explain(key.peer, key.tag, p.currentKeys(), t, err)
	why.cause, why.Partial = err, why.Partial || ctx.Err() != nil
	return why
}

// reached returns the explanation for a peer with which there is a session.
func (p *pool) reached(key poolKey, t *trail, path Path, rtt time.Duration) *Explanation {
	why := p.dialer.explain(key.peer, key.tag, p.currentKeys(), t, nil)
	if path.RTT == 0 {
		path.RTT = rtt
	}
	why.Path, why.RTT = path.String(), registry.Duration(rtt)
	return why
}

// attached returns an open session of key that is not detached, or nil.
func (p *pool) attached(key poolKey) *session.Session {
	for _, s := range p.sessionsTo(key.peer) {
		p.mu.Lock()
		same := p.open[s] == key
		p.mu.Unlock()
		if same && s.State() != session.StateDetached {
			return s
		}
	}
	return nil
}

// probe opens a session, or a conn to an old peer, and closes it. It returns the path, and the round trip of the session.
func (p *pool) probe(ctx context.Context, key poolKey) (Path, time.Duration, error) {
	p.mu.Lock()
	p.used = true
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return Path{}, 0, stopped("connect", key.peer, key.tag)
	}
	bound, cancel := p.bound(ctx)
	defer cancel()
	bound, cancel = context.WithTimeout(bound, p.openingTime())
	defer cancel()
	l, err := p.dial(bound, key)
	if err != nil {
		return Path{}, 0, p.because(ctx, err, "connect", key)
	}
	if l.conn != nil {
		defer l.drop()
		return l.conn.Path(), 0, nil
	}
	defer context.AfterFunc(bound, l.session.Abort)()
	defer l.drop()
	rtt, _ := l.session.Ping(bound) // it was there a moment ago
	return PathOf(l.session), rtt, nil
}
