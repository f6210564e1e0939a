package peerlane

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/test/oldpeer"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/session"
)

// A tap is a TCP proxy that keeps what passes it, both ways.
type tap struct {
	at ma.Multiaddr // where to dial instead

	mu   sync.Mutex
	seen bytes.Buffer
}

// newTap puts a proxy in front of a TCP address, until the test ends.
func newTap(t testing.TB, to ma.Multiaddr) *tap {
	t.Helper()
	_, target, err := manet.DialArgs(to)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &tap{}
	p.at, err = manet.FromNetAddr(l.Addr())
	require.NoError(t, err)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			go p.copy(in, out)
			go p.copy(out, in)
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	return p
}

func (p *tap) copy(to, from net.Conn) {
	_, _ = io.Copy(to, io.TeeReader(from, p))
	_, _ = to.Close(), from.Close()
}

func (p *tap) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.Write(b)
}

func (p *tap) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.Len()
}

func (p *tap) contains(b []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Contains(p.seen.Bytes(), b)
}

// The secrets of these tests.
var (
	secretA = []byte("correct horse battery")
	secretB = []byte("staple of another one")
	secretC = []byte("a third secret to come")
)

func sealedServer(t *testing.T, h host.Host, secret []byte, opts *PSKOptions) *Server {
	t.Helper()
	s := newServer(t, h, nil)
	require.NoError(t, UseModernPSKServer(s, secret, opts))
	return s
}

func sealedClient(t *testing.T, h host.Host, secret []byte) *Client {
	t.Helper()
	c := newClient(t, h, patientClient())
	require.NoError(t, UseModernPSKClient(c, secret, cheapPSK))
	return c
}

// Row: N1
// Claim: peerlane.ErrPSKTooLate
func TestAPSKMustComeBeforeTheFirstUse(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, &ServerConfig{AdmitAll: true})
	require.NoError(t, s.Start(callTag, echoHandler))
	require.ErrorIs(t, UseModernPSKServer(s, secretA, cheapPSK), ErrPSKTooLate)
	listening := newServer(t, b, &ServerConfig{AdmitAll: true})
	require.NoError(t, listening.Listen("/links"))
	require.ErrorIs(t, UseModernPSKServer(listening, secretA, cheapPSK), ErrPSKTooLate)

	called := newClient(t, a, nil)
	_, err := called.Send(t.Context(), b.ID(), callTag, nil)
	require.NoError(t, err)
	require.ErrorIs(t, UseModernPSKClient(called, secretA, cheapPSK), ErrPSKTooLate)
	connected := newClient(t, a, &ClientConfig{AdmitAll: true})
	_, err = connected.Connect(t.Context(), b.ID(), "/links")
	require.NoError(t, err)
	require.ErrorIs(t, UseModernPSKClient(connected, secretA, cheapPSK), ErrPSKTooLate)
	require.ErrorIs(t, called.RotateModernPSK(secretA, cheapPSK), ErrNoPSK)
	require.ErrorIs(t, s.RotateModernPSK(secretA, cheapPSK), ErrNoPSK)
}

// Row: N1: a policy that was refused once may be set afterwards.
// Claim: peerlane.ErrModernPSKRequired
func TestARefusedConnectDoesNotForbidThePSK(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s, c := newServer(t, b, nil), newClient(t, a, nil)
	require.ErrorIs(t, s.Listen(callTag), ErrModernPSKRequired)
	_, err := c.Connect(t.Context(), b.ID(), callTag)
	require.ErrorIs(t, err, ErrModernPSKRequired)
	require.NoError(t, UseModernPSKServer(s, secretA, cheapPSK))
	require.NoError(t, UseModernPSKClient(c, secretA, cheapPSK))
	require.NoError(t, s.Listen(callTag))
	own, err := c.Connect(t.Context(), b.ID(), callTag)
	require.NoError(t, err)
	require.True(t, own.Snapshot().Sealed)
}

// Row: N1
// Claim: peerlane.PSKOptions.Params
func TestABadSecretOrBadParamsAreErrors(t *testing.T) {
	h := testHost(t)
	s, c := newServer(t, h, nil), newClient(t, h, nil)
	bad := &PSKOptions{Params: psk.Params{Time: 1, MemoryKiB: 1, Threads: 200}}
	for _, v := range []struct {
		secret []byte
		opts   *PSKOptions
	}{{nil, cheapPSK}, {[]byte("x"), cheapPSK}, {secretA, bad}, {secretA, &PSKOptions{Params: cheapPSK.Params, Previous: []byte("x")}}} {
		require.Error(t, UseModernPSKServer(s, v.secret, v.opts), "%q", v.secret)
		require.Error(t, UseModernPSKClient(c, v.secret, v.opts), "%q", v.secret)
	}
}

// Row: N1, N3, C6: whoever lacks the key, in either direction and on every transport, is refused at once and runs nothing.
func TestPeersWithoutTheKeyAreRefusedInBothDirections(t *testing.T) {
	onEach(t, testnet.All(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		var runs atomic.Int32
		handler := func([]byte) ([]byte, error) { runs.Add(1); return nil, nil }
		require.NoError(t, sealedServer(t, b, secretA, cheapPSK).Start("/sealed", handler))
		require.NoError(t, newServer(t, b, nil).Start("/open", handler))
		open := newClient(t, a, patientClient())
		for _, v := range []struct {
			c    *Client
			tag  string
			want error
		}{
			{open, "/sealed", ErrPSKRequired},
			{sealedClient(t, a, secretA), "/open", ErrPSKRequired},
			{sealedClient(t, a, secretB), "/sealed", ErrPSKMismatch},
		} {
			_, err := v.c.Send(t.Context(), b.ID(), protocolID(v.tag), nil)
			require.ErrorIs(t, err, v.want, "%s", v.tag)
			require.True(t, requireTyped(t, err, session.NotSent).Remote)
		}
		require.Zero(t, runs.Load())
		_, err := sealedClient(t, a, secretA).Send(t.Context(), b.ID(), "/sealed", nil)
		require.NoError(t, err)
		require.EqualValues(t, 1, runs.Load())
	})
}

// Row: N1, N3, P12: pointsub's wire cannot carry a key: it is neither spoken nor served.
// Claim: peerlane.ErrLegacyPeer, peerlane.ErrPSKRequired
func TestOldPeersAreRefusedUnderAPSK(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		var runs atomic.Int32
		handler := func([]byte) ([]byte, error) { runs.Add(1); return nil, nil }
		old := oldpeer.Serve(b, "/old", handler)
		defer old.Close()
		c := sealedClient(t, a, secretA)
		_, err := c.Send(WithIdempotent(t.Context()), b.ID(), "/old", nil)
		require.ErrorIs(t, err, ErrLegacyPeer)
		require.ErrorIs(t, err, ErrPSKRequired)
		requireTyped(t, err, session.NotSent)
		_, err = c.Connect(t.Context(), b.ID(), "/old")
		require.ErrorIs(t, err, ErrLegacyPeer)
		_, err = newClient(t, a, &ClientConfig{AdmitAll: true}).Connect(t.Context(), b.ID(), "/old")
		require.ErrorIs(t, err, ErrLegacyPeer)
		require.ErrorIs(t, err, session.ErrUnsupported)
		require.NotErrorIs(t, err, ErrPSKRequired, "no key is in use")

		require.NoError(t, sealedServer(t, b, secretA, cheapPSK).Start(callTag, handler))
		require.NotContains(t, b.Mux().Protocols(), callTag)
		_, err = openAndSendOld(a, b, nil)
		require.ErrorContains(t, err, "not supported")
		require.Zero(t, runs.Load())
		requireNoStreams(t, "/old", a, b)
	})
}

// Row: N1, N2: two keys are live while a rotation is under way, and sessions that are open go on.
// Claim: peerlane.ErrPSKMismatch, peerlane.PSKOptions.Previous
func TestKeysRotateWithoutAGap(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		opts := &PSKOptions{Params: cheapPSK.Params, Previous: secretB}
		s := sealedServer(t, b, secretA, opts)
		require.NoError(t, s.Start(callTag, echoHandler))
		works := func(c *Client) error {
			_, err := c.Send(t.Context(), b.ID(), callTag, nil)
			return err
		}
		fresh := func(secret []byte) error { return works(sealedClient(t, a, secret)) }
		require.NoError(t, fresh(secretA))
		require.NoError(t, fresh(secretB), "the second live key")
		require.ErrorIs(t, fresh(secretC), ErrPSKMismatch)

		open := sealedClient(t, a, secretB)
		require.NoError(t, works(open))
		require.NoError(t, s.RotateModernPSK(secretC, cheapPSK))
		require.NoError(t, works(open), "a session that is open goes on")
		require.NoError(t, fresh(secretC))
		require.NoError(t, fresh(secretA), "the key in use until now")
		require.ErrorIs(t, fresh(secretB), ErrPSKMismatch)

		require.NoError(t, open.RotateModernPSK(secretC, cheapPSK))
		require.NoError(t, b.Network().ClosePeer(a.ID()))
		require.NoError(t, works(open), "a session that resumes offers the new key")

		require.NoError(t, s.RetireModernPSK())
		require.NoError(t, open.RetireModernPSK())
		require.ErrorIs(t, fresh(secretA), ErrPSKMismatch, "the rotation is over")
		require.NoError(t, fresh(secretC))
	})
}

// Claim: peerlane.ErrNoPSK
func TestARotationRefusesWhatHasNoMeaningInIt(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	plain, open := newServer(t, b, nil), newClient(t, a, nil)
	require.ErrorIs(t, plain.RotateModernPSK(secretA, cheapPSK), ErrNoPSK)
	require.ErrorIs(t, plain.RetireModernPSK(), ErrNoPSK)
	require.ErrorIs(t, open.RetireModernPSK(), ErrNoPSK)
	s := sealedServer(t, b, secretA, cheapPSK)
	err := s.RotateModernPSK(secretB, &PSKOptions{Params: cheapPSK.Params, Previous: secretC})
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "PSKOptions.Previous")
}

// Row: N1: the key of one tag proves nothing about another.
func TestACarrierOfOneTagIsRefusedOnAnother(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := sealedServer(t, b, secretA, cheapPSK)
	require.NoError(t, s.Start("/admin", echoHandler))
	c := sealedClient(t, a, secretA)
	conn, err := (&Dialer{Host: a, Tag: sessionTag("/admin")}).Dial(t.Context(), b.ID())
	require.NoError(t, err)
	_, err = c.pool.greet(t.Context(), conn, nil, poolKey{b.ID(), "/public"}, c.pool.currentKeys())
	require.ErrorIs(t, err, ErrPSKTampered)
}

// Row: N1, N2, N4: everything of a session is under the key, dedicated streams too.
func TestASealedSessionSaysSoAndCarriesAllLanes(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		s := sealedServer(t, b, secretA, cheapPSK)
		s.SetStream("echo", func(st *session.Stream) { copyBack(st) })
		s.SetLink("hello", func(m *session.Message) { _ = m.Reply(m.Value) })
		require.NoError(t, s.Listen(callTag))
		c := sealedClient(t, a, secretA)
		own, err := c.Connect(t.Context(), b.ID(), callTag)
		require.NoError(t, err)
		waitInfo(t, s, 1)
		require.True(t, c.GetConnectionsInfo()[0].Sealed)
		require.True(t, s.GetConnectionsInfo()[0].Sealed)
		reply, err := own.SendWait(t.Context(), "hello", noise(1<<20))
		require.NoError(t, err)
		require.True(t, bytes.Equal(noise(1<<20), reply.Value))
		for _, dedicated := range []bool{false, true} {
			st, err := own.OpenStream(t.Context(), "echo", &session.StreamOptions{Dedicated: dedicated})
			require.NoError(t, err)
			_, err = st.Write(noise(1000))
			require.NoError(t, err)
			require.NoError(t, st.CloseWrite())
			require.Equal(t, noise(1000), readAll(t, st))
		}
	})
}

// marker is what a capture is searched for, often enough that no frame boundary hides it.
var marker = bytes.Repeat([]byte("peerlane-payload-marker/"), 4096)

// callWithMarker makes a call, a message and a stream that carry the marker both ways.
func callWithMarker(t *testing.T, c *Client, h host.Host) {
	t.Helper()
	got, err := c.Send(t.Context(), h.ID(), callTag, marker)
	require.NoError(t, err)
	require.True(t, bytes.Equal(marker, got))
}

// Row: N2, invariant 9: a relay sees ciphertext only.
func TestARelaySeesNoPayload(t *testing.T) {
	r := testnet.NewRelay(t, testnet.Relay)
	relay := r.Host()
	front := newTap(t, relay.Addrs()[0]) // what comes from a
	back := newTap(t, relay.Addrs()[0])  // what goes to b
	a, b := testnet.Host(t, testnet.Relay), testnet.Host(t, testnet.Relay)
	peerlanetest.Teach(b, relay.ID(), back.at)
	require.NoError(t, b.Connect(testContext(t), b.Peerstore().PeerInfo(relay.ID())))
	r.Reserve(b)
	peerlanetest.Teach(a, b.ID(), ma.Join(front.at, ma.StringCast("/p2p/"+relay.ID().String()+"/p2p-circuit")))
	for _, sealed := range []bool{false, true} {
		s, c := newServer(t, b, &ServerConfig{}), newClient(t, a, &ClientConfig{})
		if sealed {
			require.NoError(t, UseModernPSKServer(s, secretA, cheapPSK))
			require.NoError(t, UseModernPSKClient(c, secretA, cheapPSK))
		}
		require.NoError(t, s.Start(callTag, echoHandler))
		before := [2]int{front.size(), back.size()}
		callWithMarker(t, c, b)
		require.True(t, c.GetConnectionsInfo()[0].Path.Relayed)
		for i, seen := range []*tap{front, back} {
			require.Greater(t, seen.size()-before[i], 2*len(marker), "the capture missed something")
			require.False(t, seen.contains(marker[:24]))
		}
		require.NoError(t, c.Close())
		require.NoError(t, s.Stop())
	}
}

// A tapStream keeps what passes a libp2p stream: what is inside libp2p's own secure channel.
type tapStream struct {
	network.MuxedStream

	seen *tap
}

func (s tapStream) Read(p []byte) (int, error) {
	n, err := s.MuxedStream.Read(p)
	_, _ = s.seen.Write(p[:n])
	return n, err
}

func (s tapStream) Write(p []byte) (int, error) {
	_, _ = s.seen.Write(p)
	return s.MuxedStream.Write(p)
}

// Row: N2: under a key even the libp2p stream carries ciphertext only; without one it does not, which shows that the test
// looks at the right place.
func TestUnderAPSKTheStreamItselfIsSealed(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		for _, sealed := range []bool{false, true} {
			s, c := newServer(t, b, &ServerConfig{}), newClient(t, a, &ClientConfig{})
			if sealed {
				require.NoError(t, UseModernPSKServer(s, secretA, cheapPSK))
				require.NoError(t, UseModernPSKClient(c, secretA, cheapPSK))
			}
			require.NoError(t, s.Start(callTag, echoHandler))
			conn, _, err := c.pool.dialer.open(testContext(t), b.ID(), sessionTag(callTag))
			require.NoError(t, err)
			seen := &tap{}
			conn.stream = tapStream{conn.stream, seen}
			own, err := c.pool.greet(context.Background(), conn, nil, poolKey{b.ID(), callTag}, c.pool.currentKeys())
			require.NoError(t, err)
			got, err := own.Call(t.Context(), "", marker)
			require.NoError(t, err)
			require.True(t, bytes.Equal(marker, got))
			require.NoError(t, own.Close())
			require.Greater(t, seen.size(), 2*len(marker))
			require.Equal(t, !sealed, seen.contains(marker[:24]))
			require.NoError(t, s.Stop())
		}
	})
}

// Row: N1: a peer that passes on the hello of another gets nowhere: the proof is bound to both names.
// Claim: peerlane.ErrPSKTampered
func TestAHelloPassedOnByAThirdPeerIsRefused(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	m := testHost(t)
	peerlanetest.Teach(a, m.ID(), m.Addrs()...)
	peerlanetest.Teach(m, b.ID(), b.Addrs()...)
	s := sealedServer(t, b, secretA, cheapPSK)
	require.NoError(t, s.Start(callTag, echoHandler))
	m.SetStreamHandler(sessionTag(callTag), func(from network.Stream) {
		to, err := (&Dialer{Host: m, Tag: sessionTag(callTag)}).Dial(context.Background(), b.ID())
		if err != nil {
			_ = from.Reset()
			return
		}
		go func() { _, _ = io.Copy(to, from); _ = to.Close() }()
		_, _ = io.Copy(from, to)
		_ = from.Close()
	})
	_, err := sealedClient(t, a, secretA).Send(t.Context(), m.ID(), callTag, nil)
	require.ErrorIs(t, err, ErrPSKTampered)
	require.Equal(t, codes.PSKTampered, requireTyped(t, err, session.NotSent).Code)
	require.Empty(t, s.Sessions())
}
