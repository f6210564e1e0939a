package mdns

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/net/dns/dnsmessage"
)

// Names in libp2p's mDNS discovery (libp2p specs, discovery/mdns.md).
const (
	serviceName = "_p2p._udp.local."
	textPrefix  = "dnsaddr="
)

// Limits of a message.
const (
	maxPacket  = 9000 // bytes to read; RFC 6762, 17
	maxRecords = 256  // records of a message to process
	maxTexts   = 10   // addresses in an answer, which stay below 1,500 bytes
	maxText    = 255  // bytes of an address
)

// Lifetimes of records in other hosts' caches, in seconds.
const (
	lifetime = 120
	goodbye  = 0
)

// unique is the class of records that only one host owns; RFC 6762, 10.2.
const unique = dnsmessage.ClassINET | 1<<15

// service is the packed serviceName.
var service = dnsmessage.MustNewName(serviceName)

// question returns the message that queries all peers for their addresses.
func question() ([]byte, error) {
	m := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: service, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET}}}
	return m.Pack()
}

// answer returns the message that announces the addresses of the peer id. label is a random, unique name.
func answer(label string, id peer.ID, addrs []ma.Multiaddr, ttl uint32) ([]byte, error) {
	instance, err := dnsmessage.NewName(label + "." + serviceName)
	if err != nil {
		return nil, err
	}
	target, err := dnsmessage.NewName(label + ".local.")
	if err != nil {
		return nil, err
	}
	head := func(name dnsmessage.Name, class dnsmessage.Class) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: name, Class: class, TTL: ttl}
	}
	// Peers use only the TXT record. DNS-SD requires the other records, and some libraries wait for them.
	m := dnsmessage.Message{
		Header:  dnsmessage.Header{Response: true, Authoritative: true},
		Answers: []dnsmessage.Resource{{Header: head(service, dnsmessage.ClassINET), Body: &dnsmessage.PTRResource{PTR: instance}}},
		Additionals: []dnsmessage.Resource{
			{Header: head(instance, unique), Body: &dnsmessage.SRVResource{Port: 4001, Target: target}},
			{Header: head(instance, unique), Body: &dnsmessage.TXTResource{TXT: texts(id, addrs)}},
		},
	}
	if ip4, ok := firstIP(addrs, netip.Addr.Is4); ok {
		m.Additionals = append(m.Additionals, dnsmessage.Resource{Header: head(target, unique), Body: &dnsmessage.AResource{A: ip4.As4()}})
	}
	if ip6, ok := firstIP(addrs, netip.Addr.Is6); ok {
		m.Additionals = append(m.Additionals, dnsmessage.Resource{Header: head(target, unique), Body: &dnsmessage.AAAAResource{AAAA: ip6.As16()}})
	}
	return m.Pack()
}

// texts returns the strings of a TXT record.
func texts(id peer.ID, addrs []ma.Multiaddr) []string {
	var all []string
	for _, a := range addrs {
		if s := textPrefix + a.String() + "/p2p/" + id.String(); len(s) <= maxText && len(all) < maxTexts {
			all = append(all, s)
		}
	}
	return all
}

func firstIP(addrs []ma.Multiaddr, is func(netip.Addr) bool) (netip.Addr, bool) {
	for _, a := range addrs {
		if ip, ok := ipOf(a); ok && is(ip) {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// A claim is a message's statement about one peer.
type claim struct {
	id    peer.ID
	addrs []ma.Multiaddr // nil: the peer is leaving
}

// parse reports whether a message queries for peers, and returns its claims. It uses a malformed message up to the first error.
func parse(packet []byte) (asks bool, claims []claim) {
	var p dnsmessage.Parser
	head, err := p.Start(packet)
	if err != nil {
		return false, nil
	}
	if !head.Response {
		return asksForPeers(&p), nil
	}
	if p.SkipAllQuestions() != nil {
		return false, nil
	}
	left := maxRecords
	claims, ok := records(p.AnswerHeader, p.SkipAnswer, p.TXTResource, &left, nil)
	if ok && p.SkipAllAuthorities() == nil {
		claims, _ = records(p.AdditionalHeader, p.SkipAdditional, p.TXTResource, &left, claims)
	}
	return false, claims
}

func asksForPeers(p *dnsmessage.Parser) bool {
	for range maxRecords {
		q, err := p.Question()
		if err != nil {
			return false
		}
		if strings.EqualFold(q.Name.String(), serviceName) && (q.Type == dnsmessage.TypePTR || q.Type == dnsmessage.TypeALL) {
			return true
		}
	}
	return false
}

// records appends the claims in a section's TXT records, and reports whether it reached the end of the section.
func records(
	next func() (dnsmessage.ResourceHeader, error), skip func() error, text func() (dnsmessage.TXTResource, error), left *int, claims []claim,
) ([]claim, bool) {
	for ; *left > 0; *left-- {
		head, err := next()
		if err != nil {
			return claims, errors.Is(err, dnsmessage.ErrSectionDone)
		}
		if head.Type != dnsmessage.TypeTXT || !strings.HasSuffix(strings.ToLower(head.Name.String()), "."+serviceName) {
			if skip() != nil {
				return claims, false
			}
			continue
		}
		txt, err := text()
		if err != nil {
			return claims, false
		}
		claims = addTexts(claims, txt.TXT, head.TTL)
	}
	return claims, false
}

// addTexts appends the claims in a TXT record.
func addTexts(claims []claim, all []string, ttl uint32) []claim {
	for _, s := range all {
		s, ok := strings.CutPrefix(s, textPrefix)
		if !ok {
			continue
		}
		addr, err := ma.NewMultiaddr(s)
		if err != nil {
			continue
		}
		at, id := peer.SplitAddr(addr)
		if id == "" || !isLocal(at) {
			continue
		}
		if len(claims) == 0 || claims[len(claims)-1].id != id {
			claims = append(claims, claim{id: id})
		}
		if last := &claims[len(claims)-1]; ttl != goodbye && len(last.addrs) < maxAddrs {
			last.addrs = append(last.addrs, at)
		}
	}
	return claims
}

// isLocal reports whether an address may belong to the local network: an IP address that libp2p can dial, with TCP or QUIC.
func isLocal(a ma.Multiaddr) bool {
	ip, ok := ipOf(a)
	if !ok || len(a) < 2 || len(a) > 3 || ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() || ip.Is6() && ip.IsLinkLocalUnicast() {
		return false
	}
	switch last := a[len(a)-1].Protocol().Code; a[1].Protocol().Code {
	case ma.P_TCP:
		return len(a) == 2
	case ma.P_UDP:
		return last == ma.P_QUIC_V1
	}
	return false
}

// ipOf returns the IP address at the start of a.
func ipOf(a ma.Multiaddr) (netip.Addr, bool) {
	if len(a) == 0 {
		return netip.Addr{}, false
	}
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}
