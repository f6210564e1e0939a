package punch_test

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch/pb"
	identifier "github.com/libp2p/go-libp2p/p2p/protocol/identify"
	identifypb "github.com/libp2p/go-libp2p/p2p/protocol/identify/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-msgio/pbio"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/punch"
	"github.com/peerlane/peerlane/peerlanetest"
)

const wideProtocol = "/peerlane/punch-wide/1.0.0"

// intruder returns a host that has no service, and is connected to Bob over the relay. Bob cannot reach it otherwise, and of two exchanges that
// begin at once its own is the one that is made.
func (w *world) intruder(t *testing.T, i int, opts ...libp2p.Option) host.Host {
	t.Helper()
	inside := fmt.Sprintf("192.168.3.%d", i+1)
	w.net.AddNAT(hard, fmt.Sprintf("11.0.1.%d", i+1), inside)
	h := w.net.Host(inside+":4001", append(opts, identityAbove(t, w.bob.ID()), libp2p.EnableRelay(), libp2p.ForceReachabilityPrivate())...)
	require.NoError(t, h.Connect(network.WithAllowLimitedConn(t.Context(), "test"), w.bobIsReached))
	return h
}

// identityAbove returns the option of a host whose Peer ID is higher than another.
func identityAbove(t *testing.T, other peer.ID) libp2p.Option {
	t.Helper()
	for {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		require.NoError(t, err)
		id, err := peer.IDFromPrivateKey(key)
		require.NoError(t, err)
		if id > other {
			return libp2p.Identity(key)
		}
	}
}

// open opens a stream to Bob.
func (w *world) open(t *testing.T, h host.Host, proto protocol.ID) (network.Stream, error) {
	t.Helper()
	return h.NewStream(network.WithNoDial(network.WithAllowLimitedConn(t.Context(), "test"), "test"), w.bob.ID(), proto)
}

// punchAt makes an exchange with Bob that names addresses. It returns an error if Bob refuses.
func (w *world) punchAt(t *testing.T, h host.Host, proto protocol.ID, addrs ...ma.Multiaddr) error {
	t.Helper()
	s, err := w.open(t, h, proto)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	m := &pb.HolePunch{Type: pb.HolePunch_CONNECT.Enum()}
	for _, a := range addrs {
		m.ObsAddrs = append(m.ObsAddrs, a.Bytes())
	}
	wr, r := pbio.NewDelimitedWriter(s), pbio.NewDelimitedReader(s, 4<<10)
	if err := wr.WriteMsg(m); err != nil {
		return err
	}
	if err := r.ReadMsg(new(pb.HolePunch)); err != nil {
		return err
	}
	return wr.WriteMsg(&pb.HolePunch{Type: pb.HolePunch_SYNC.Enum()})
}

// count counts the packets that arrive at an address; those of many holes have 16 bytes.
func (w *world) count(t *testing.T, c net.PacketConn) (probes, others *atomic.Int64) {
	t.Helper()
	probes, others = new(atomic.Int64), new(atomic.Int64)
	var reader sync.WaitGroup
	reader.Go(func() {
		b := make([]byte, 2048)
		for {
			n, _, err := c.ReadFrom(b)
			switch {
			case err != nil:
				return
			case n == 16:
				probes.Add(1)
			default:
				others.Add(1)
			}
		}
	})
	t.Cleanup(func() { _ = c.Close(); reader.Wait() })
	return probes, others
}

func at(c net.PacketConn) ma.Multiaddr { return peerlanetest.QUICAddr(c.LocalAddr().String()) }

// A peer names the address of somebody else, under many Peer IDs.
func TestManyHolesAtAThirdPartyAreBounded(t *testing.T) {
	inWorld(t, none, easy, "", func(t *testing.T, w *world) {
		victim := w.net.ListenUDP("11.0.0.99")
		probes, _ := w.count(t, victim)
		for i := range 16 {
			h := w.intruder(t, i)
			for range 4 {
				_ = w.punchAt(t, h, wideProtocol, at(victim)) // it may refuse
			}
			time.Sleep(5 * time.Second)
		}
		require.LessOrEqual(t, probes.Load(), int64(2*(3*256+1)), "one attempt a minute, and 80 s are over")
	})
}

// The same with an address of somebody else each time: the packets go out from 256 sockets.
func TestManyHolesAreBoundedInAll(t *testing.T) {
	inWorld(t, none, easy, "", func(t *testing.T, w *world) {
		victims := w.net.ListenUDP("11.0.0.98")
		all, _ := w.count(t, victims)
		for i := range 14 {
			victim := w.net.ListenUDP(fmt.Sprintf("11.0.2.%d", i+1))
			probes, _ := w.count(t, victim)
			h := w.intruder(t, i)
			_ = w.punchAt(t, h, wideProtocol, at(victim))
			time.Sleep(4 * time.Second)
			all.Add(probes.Load())
		}
		require.LessOrEqual(t, all.Load(), int64(8*(3*256+1)), "eight attempts a minute; a probe of a random port may hit")
		require.Positive(t, all.Load())
	})
}

// A single peer may not make many attempts at once.
func TestAPeerHasOneAttemptWithManyHoles(t *testing.T) {
	inWorld(t, none, easy, "", func(t *testing.T, w *world) {
		h := w.intruder(t, 0)
		var probes []*atomic.Int64
		var all sync.WaitGroup
		for i := range 4 {
			victim := w.net.ListenUDP(fmt.Sprintf("11.0.2.%d", i+1))
			n, _ := w.count(t, victim)
			probes = append(probes, n)
			all.Go(func() { _ = w.punchAt(t, h, wideProtocol, at(victim)) })
		}
		all.Wait()
		time.Sleep(10 * time.Second)
		hit := 0
		for _, n := range probes {
			if n.Load() > 0 {
				hit++
			}
		}
		require.LessOrEqual(t, hit, 1)
	})
}

// A peer that begins one exchange after the other makes this host dial somebody else.
func TestDialsOfAThirdPartyAreBounded(t *testing.T) {
	inWorld(t, none, easy, "", func(t *testing.T, w *world) {
		victim := w.net.ListenUDP("11.0.0.99")
		_, packets := w.count(t, victim)
		h := w.intruder(t, 0)
		made := 0
		for range 200 {
			if w.punchAt(t, h, punch.Protocol, at(victim)) == nil {
				made++
			}
			time.Sleep(100 * time.Millisecond)
		}
		require.LessOrEqual(t, made, 12)
		t.Logf("%d exchanges, %d packets", made, packets.Load())
	})
}

// Under many Peer IDs, too.
func TestDialsOfAThirdPartyByManyAreBounded(t *testing.T) {
	inWorld(t, none, easy, "", func(t *testing.T, w *world) {
		victim := w.net.ListenUDP("11.0.0.99")
		_, packets := w.count(t, victim)
		var all []host.Host
		for i := range 15 {
			all = append(all, w.intruder(t, i))
		}
		made, began := 0, time.Now()
		for time.Since(began) < 50*time.Second {
			for _, h := range all {
				if w.punchAt(t, h, punch.Protocol, at(victim)) == nil {
					made++
				}
			}
			time.Sleep(3 * time.Second)
		}
		t.Logf("%d exchanges, %d packets", made, packets.Load())
		require.GreaterOrEqual(t, made, 64)
		require.LessOrEqual(t, packets.Load(), int64(2*64*5), "two minutes of 64 dials")
	})
}

// What no peer has over a public relay is not dialed: services in the network of this host.
func TestPrivateAddressesAreNotDialedOverAPublicRelay(t *testing.T) {
	inWorld(t, none, easy, "", func(t *testing.T, w *world) {
		w.net.AddNAT(easy, "11.0.0.20", "192.168.2.2", "192.168.2.9")
		time.Sleep(30 * time.Second) // Bob is there again
		printer := w.net.ListenUDP("192.168.2.9")
		probes, packets := w.count(t, printer)
		h := w.intruder(t, 0)
		require.NoError(t, w.punchAt(t, h, wideProtocol, at(printer), peerlanetest.QUICAddr("11.0.1.1:4001")))
		time.Sleep(10 * time.Second)
		require.Zero(t, probes.Load()+packets.Load())
	})
}

// A message may name many addresses.
func TestFewAddressesOfAMessageAreDialed(t *testing.T) {
	inWorld(t, none, easy, "", func(t *testing.T, w *world) {
		var packets []*atomic.Int64
		var addrs []ma.Multiaddr
		for i := range 16 {
			victim := w.net.ListenUDP(fmt.Sprintf("11.0.2.%d", i+1))
			_, n := w.count(t, victim)
			packets, addrs = append(packets, n), append(addrs, at(victim))
		}
		require.NoError(t, w.punchAt(t, w.intruder(t, 0), punch.Protocol, addrs...))
		time.Sleep(10 * time.Second)
		dialed := 0
		for _, n := range packets {
			if n.Load() > 0 {
				dialed++
			}
		}
		require.Positive(t, dialed)
		require.LessOrEqual(t, dialed, 4)
	})
}

// The addresses that a peer says it listens on are dialed as well: they may be very many.
func TestFewOfTheKnownAddressesAreDialed(t *testing.T) {
	inWorld(t, none, easy, "", func(t *testing.T, w *world) {
		var packets []*atomic.Int64
		var addrs []ma.Multiaddr
		for i := range 100 {
			victim := w.net.ListenUDP(fmt.Sprintf("11.0.2.%d", i+1))
			_, n := w.count(t, victim)
			packets, addrs = append(packets, n), append(addrs, at(victim))
		}
		h := w.intruder(t, 0, libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr { return addrs }))
		time.Sleep(10 * time.Minute)
		dialed := 0
		for _, n := range packets {
			if n.Load() > 0 {
				dialed++
			}
		}
		require.Positive(t, dialed)
		require.LessOrEqual(t, dialed, 8)
		require.LessOrEqual(t, len(w.bob.Peerstore().Addrs(h.ID())), 8)
	})
}

// A peer that begins exchanges and says nothing does not keep others from them.
func TestOnePeerDoesNotTakeAllExchanges(t *testing.T) {
	inWorld(t, none, easy, "", func(t *testing.T, w *world) {
		h := w.intruder(t, 0)
		for range 100 {
			s, err := w.open(t, h, punch.Protocol)
			require.NoError(t, err)
			_, _ = s.Write([]byte{100}) // the length of a message that does not come; Bob may have refused
		}
		time.Sleep(time.Second)
		other := w.intruder(t, 1)
		require.NoError(t, w.punchAt(t, other, punch.Protocol, peerlanetest.QUICAddr("11.0.1.2:4001")))
	})
}

// Close does not wait for a peer that says nothing.
func TestCloseDoesNotWaitForPeers(t *testing.T) {
	inWorld(t, none, easy, "", func(t *testing.T, w *world) {
		s, err := w.open(t, w.intruder(t, 0), punch.Protocol)
		require.NoError(t, err)
		_, err = s.Write([]byte{100})
		require.NoError(t, err)
		silent := w.intruder(t, 1)
		silent.SetStreamHandler(punch.Protocol, func(network.Stream) {})
		time.Sleep(1500 * time.Millisecond)
		began := time.Now()
		require.NoError(t, w.ofBob.Close())
		require.Less(t, time.Since(began), time.Second)
	})
}

// A connection whose other side knows no ping, but answers that, is alive.
func TestADirectConnectionThatAnswersIsKept(t *testing.T) {
	inWorld(t, none, easiest, "", func(t *testing.T, w *world) {
		h := w.intruder(t, 0)
		h.RemoveStreamHandler(ping.ID)
		peerlanetest.Teach(h, w.bob.ID(), peerlanetest.QUICAddr("11.0.0.20:4001"))
		_, err := h.Network().DialPeer(network.WithForceDirectDial(t.Context(), "test"), w.bob.ID())
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.True(t, direct(w.bob, h))
		s, err := relayedStream(t, h, w.bob.ID(), punch.Protocol)
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		_ = s.Reset()
		require.True(t, direct(w.bob, h))
	})
}

// relayedStream opens a stream over the relayed connection to a peer.
func relayedStream(t *testing.T, h host.Host, pid peer.ID, proto protocol.ID) (network.Stream, error) {
	t.Helper()
	for _, c := range h.Network().ConnsToPeer(pid) {
		if !c.Stat().Limited {
			continue
		}
		s, err := c.NewStream(network.WithAllowLimitedConn(t.Context(), "test"))
		if err != nil {
			return nil, err
		}
		if err := s.SetProtocol(proto); err != nil {
			return nil, err
		}
		return s, selectProtocol(s, proto)
	}
	return nil, network.ErrNoConn
}

func selectProtocol(s network.Stream, proto protocol.ID) error {
	return multistream.SelectProtoOrFail(proto, io.ReadWriteCloser(s))
}

// A peer that identifies itself again and again does not keep the seeker busy.
func TestAttemptsWithAPeerAreBounded(t *testing.T) {
	inWorld(t, none, easy, "", func(t *testing.T, w *world) {
		h := w.intruder(t, 0)
		var begun atomic.Int64
		h.SetStreamHandler(punch.Protocol, func(s network.Stream) {
			begun.Add(1)
			_ = s.Reset()
		})
		for i := range 300 { // each of them is told to Bob
			h.SetStreamHandler(protocol.ID(fmt.Sprintf("/test/%d", i)), func(network.Stream) {})
			time.Sleep(100 * time.Millisecond)
		}
		require.Positive(t, begun.Load())
		require.LessOrEqual(t, begun.Load(), int64(12))
	})
}

// A peer behind a relay, and one that has dialed this host, can say nothing about where the host is.
func TestAPeerDoesNotSayWhereAHostIs(t *testing.T) {
	inWorld(t, none, easy, "", func(t *testing.T, w *world) {
		victim := peerlanetest.QUICAddr("11.0.0.99:4001")
		identify := func(s network.Stream) {
			defer func() { _ = s.Close() }()
			m := &identifypb.Identify{ObservedAddr: victim.Bytes()}
			_ = pbio.NewDelimitedWriter(s).WriteMsg(m) // Bob may be gone
		}
		liar := w.intruder(t, 0)
		liar.SetStreamHandler(identifier.ID, identify)
		for _, c := range liar.Network().ConnsToPeer(w.bob.ID()) {
			require.NoError(t, c.Close())
		}
		time.Sleep(time.Second)
		require.NoError(t, liar.Connect(network.WithAllowLimitedConn(t.Context(), "test"), w.bobIsReached))
		time.Sleep(time.Second)
		h := w.intruder(t, 1)
		s, err := w.open(t, h, punch.Protocol)
		require.NoError(t, err)
		require.NoError(t, pbio.NewDelimitedWriter(s).WriteMsg(&pb.HolePunch{Type: pb.HolePunch_CONNECT.Enum(),
			ObsAddrs: [][]byte{peerlanetest.QUICAddr("11.0.1.1:4001").Bytes()}}))
		var m pb.HolePunch
		require.NoError(t, pbio.NewDelimitedReader(s, 4<<10).ReadMsg(&m))
		require.NotEmpty(t, m.ObsAddrs)
		require.NotContains(t, m.ObsAddrs, victim.Bytes())
	})
}
