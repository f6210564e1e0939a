package session

import (
	"cmp"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
)

// A Quota limits the work and memory of all sessions that share it, and divides both among peers. A limit of zero or less is none; limits
// must not change while sessions use the Quota. It is safe for concurrent use.
//
// A lone peer may have all of a limit but an eighth. That is for peers that have little, one half of it for those in subnets that have little
// too; each newcomer gets a sixteenth of the eighth at first. While others want more than there is, no peer, and no subnet, gets more than a
// quarter. When all sessions are open, unused ones end to make room, and so do those whose open streams have been still for 30 s, of peers that
// have more than a 128th. Limits below 16 are not divided, and no session ends for others.
type Quota struct {
	MaxSessions int // sessions that peers have open at once
	MaxCalls    int // handlers of requests that run at once
	// MaxBytes limits the bytes held for peers on sessions that they have opened: requests, messages, replies, what is kept to send again, what
	// streams, record streams, lanes in blocks and transfers hold, and credit for more. On sessions that this side has opened, only requests,
	// received messages, replies to them and shared streams count.
	MaxBytes int64

	once    sync.Once
	tree    *fair.Tree
	refused atomic.Uint64

	relieving sync.Mutex // held while sessions to end are looked for
	vain      vain
	reliefAt  atomic.Int64 // when memory was last looked for, in nanoseconds since 1970

	mu      sync.Mutex
	open    map[any]map[tenant]struct{} // the sessions with a place, by subnet
	leaving map[tenant]struct{}         // those of open that are being ended to make room
	freed   chan struct{}               // closed when a session ends; nil: nobody waits
}

// A QuotaSnapshot is what of a Quota is in use at one moment.
type QuotaSnapshot struct {
	Sessions int    // open
	Calls    int    // handlers that run
	Bytes    int64  // held
	Refused  uint64 // calls and messages that were refused for lack of room
}

// Snapshot returns how much is in use.
func (q *Quota) Snapshot() QuotaSnapshot {
	t := q.all()
	return QuotaSnapshot{int(t.Used(fair.Sessions)), int(t.Used(fair.Calls)), t.Used(fair.Bytes), q.refused.Load()}
}

func (q *Quota) all() *fair.Tree {
	q.once.Do(func() { q.tree = fair.New(int64(q.MaxSessions), int64(q.MaxCalls), q.MaxBytes) })
	return q.tree
}

// Expect keeps places free for a peer: it may have up to a quarter of each limit at once, where a newcomer begins with little. The same goes
// for the last 1024 peers that have been served before, 8 of a subnet and 256 of a /48.
func (q *Quota) Expect(peer string) { q.all().Expect(peer) }

// Hold returns the part of the quota that a peer has, for work that is done beside its sessions. subnet names the network that the peer comes
// from, as SubnetOf does; if it is empty, the peer counts as a network of its own. Leave must be called for it.
func (q *Quota) Hold(peer, subnet string) *QuotaPart {
	return &QuotaPart{quota: q, holder: q.all().Hold(peer, cmp.Or(subnet, peer))}
}

// A QuotaPart is what one peer has of a Quota, over all its sessions. It is safe for concurrent use.
type QuotaPart struct {
	quota     *Quota
	holder    *fair.Holder
	refusedAt atomic.Int64 // when memory was last refused that can wait, in nanoseconds since 1970; 0: it was granted since
}

// Leave ends the use of a QuotaPart. What it has taken stays counted until it is released.
func (p *QuotaPart) Leave() { p.holder.Leave() }

// Served notes that the peer has been served: see Quota.Expect.
func (p *QuotaPart) Served() { p.holder.Served() }

// Take reserves places for handlers and bytes of memory, or returns an *Error that matches ErrUnavailable and says whose share is used up.
func (p *QuotaPart) Take(calls, bytes int) error {
	if f := p.take(fair.Calls, calls); f.Code != codes.OK {
		return failed(f)
	}
	if f := p.take(fair.Bytes, bytes); f.Code != codes.OK {
		p.release(fair.Calls, calls)
		return failed(f)
	}
	return nil
}

func failed(f frame.Failure) *Error {
	return &Error{Code: f.Code, RetryAfter: f.RetryAfter, Text: f.Text}
}

// Release releases what Take has reserved.
func (p *QuotaPart) Release(calls, bytes int) {
	p.release(fair.Calls, calls)
	p.release(fair.Bytes, bytes)
}

// take reserves n of a kind, or returns the refusal.
func (p *QuotaPart) take(k fair.Kind, n int) frame.Failure {
	if n == 0 {
		return frame.Failure{}
	}
	v := p.holder.Take(k, int64(n))
	if v == fair.Granted {
		return frame.Failure{}
	}
	if k == fair.Bytes {
		p.quota.wantBytes(v, p.holder)
	}
	p.quota.refused.Add(1)
	return refusals[v][k]
}

// release releases n of a kind.
func (p *QuotaPart) release(k fair.Kind, n int) {
	if n != 0 {
		p.holder.Give(k, int64(n))
	}
}

// retryHint is the RetryAfter of a refusal for lack of room.
const retryHint = 100 * time.Millisecond

// refusals are the answers where there is no room, by whose share it is and of what.
var refusals = map[fair.Verdict]map[fair.Kind]frame.Failure{
	fair.Full:  noneLeft,
	fair.Spent: noneLeft,
	fair.PeerShare: {
		fair.Sessions: noRoom("this peer's share of the sessions is open: others want the rest"),
		fair.Calls:    noRoom("this peer's share of the calls is running: others want the rest"),
		fair.Bytes:    noRoom("this peer's share of the memory is used: others want the rest"),
	},
	fair.SubnetShare: {
		fair.Sessions: noRoom("the share of this peer's network of the sessions is open: others want the rest"),
		fair.Calls:    noRoom("the share of this peer's network of the calls is running: others want the rest"),
		fair.Bytes:    noRoom("the share of this peer's network of the memory is used: others want the rest"),
	},
}

// noneLeft are the answers where everything is in use, or set aside for peers that have little.
var noneLeft = map[fair.Kind]frame.Failure{
	fair.Sessions: noRoom("too many sessions open, no more are taken"),
	fair.Calls:    noRoom("too many calls at once"),
	fair.Bytes:    noRoom("no memory for more requests"),
}

func noRoom(text string) frame.Failure {
	return frame.Failure{Code: codes.Unavailable, RetryAfter: retryHint, Text: text}
}

// Prefixes that one user is taken to have: an attacker has all addresses of them.
const (
	subnetBits4 = 24
	subnetBits6 = 56
)

// SubnetOf names the network of an IP address that a Quota counts as one: the /24 of an IPv4 address, the /56 of an IPv6 one. It returns ""
// for an invalid address.
func SubnetOf(ip netip.Addr) string {
	bits := subnetBits6
	if ip = ip.Unmap(); ip.Is4() {
		bits = subnetBits4
	}
	prefix, err := ip.WithZone("").Prefix(bits)
	if err != nil {
		return ""
	}
	return prefix.String()
}

// subnetOf returns the network that a carrier comes from, as the carrier or its address says, or "".
func subnetOf(conn net.Conn) string {
	if c, ok := conn.(interface{ Subnet() string }); ok {
		if subnet := c.Subnet(); subnet != "" {
			return subnet
		}
	}
	if a, ok := conn.RemoteAddr().(interface{ AddrPort() netip.AddrPort }); ok {
		return SubnetOf(a.AddrPort().Addr())
	}
	return ""
}
