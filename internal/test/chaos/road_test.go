package chaos

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/session"
)

const (
	tag = "/chaos/1.0.0"

	// closeTimeout is short, so that a run in which it passes ends soon.
	closeTimeout = 2 * time.Second
	// patience is how long what outlives its session is waited for. Then the accepting side cuts it off, or its host ends.
	patience = 3 * time.Second
	// setupPatience bounds what is done before the first fault.
	setupPatience = time.Minute
)

var (
	secret     = []byte("a secret for the tests of chaos")
	cheap      = psk.Params{Time: 1, MemoryKiB: 64, Threads: 1}
	cheapKeys  = sync.OnceValues(func() (*psk.Key, error) { return psk.Derive(secret, &cheap) })
	cheapToUse = &peerlane.PSKOptions{Params: cheap}
)

// A registrar is one side's handlers.
type registrar interface {
	SetStream(name string, fn func(*session.Stream))
	SetDefaultLink(fn func(*session.Message))
}

// A road is two sides, of which the first dials.
type road interface {
	connect(ctx context.Context) (*session.Session, error)
	handlers(side int) registrar
	// call is a call of the tag's on a session of the road's choice. ok is false where there is no such thing.
	call(ctx context.Context, request []byte) (reply []byte, ok bool, err error)
	// endDialing and shutdown end one side, once and again.
	endDialing() error
	shutdown(ctx context.Context) error
	// done waits for what is left after both.
	done()
}

// rootRoad is a Client and a Server.
type rootRoad struct {
	b      host.Host
	client *peerlane.Client
	server *peerlane.Server
	keeper *peerlane.Keeper
	kept   bool // the keeper's session has been given out
}

func newRootRoad(t testing.TB, m *model, a, b host.Host) *rootRoad {
	p := m.plan
	client, err := peerlane.NewClient(a, &peerlane.ClientConfig{
		AdmitAll: true, EnableCompression: p.compress, Heartbeat: p.heartbeat, ResumeWindow: p.resumeWindow, ReplayWindow: p.replayWindow,
		CloseTimeout: closeTimeout, MaxRetries: 2, RetryInterval: 50 * time.Millisecond,
		OnUndelivered: m.undelivered, OnState: m.onState("dialing"),
	})
	require.NoError(t, err)
	server, err := peerlane.NewServer(b, &peerlane.ServerConfig{
		AdmitAll: true, EnableCompression: p.compress, Heartbeat: p.heartbeat, ResumeWindow: p.resumeWindow, ReplayWindow: p.replayWindow,
		CloseTimeout: closeTimeout, BufferPoolSize: p.messageWindow, MaxRequestsPerConn: p.maxRequests, OnState: m.onState("accepting"),
	})
	require.NoError(t, err)
	if p.sealed {
		require.NoError(t, peerlane.UseModernPSKClient(client, secret, cheapToUse))
		require.NoError(t, peerlane.UseModernPSKServer(server, secret, cheapToUse))
	}
	require.NoError(t, server.Handle(tag, m.handleCall))
	r := &rootRoad{b: b, client: client, server: server}
	if p.keeper {
		r.keeper, err = client.Keep(b.ID(), tag, nil)
		require.NoError(t, err)
	}
	return r
}

func (r *rootRoad) connect(ctx context.Context) (*session.Session, error) {
	if r.keeper != nil && !r.kept {
		r.kept = true
		return r.keeper.Get(ctx)
	}
	return r.client.Connect(ctx, r.b.ID(), tag)
}

func (r *rootRoad) handlers(side int) registrar {
	if side == dialing {
		return r.client
	}
	return r.server
}

func (r *rootRoad) call(ctx context.Context, request []byte) ([]byte, bool, error) {
	reply, err := r.client.Send(ctx, r.b.ID(), tag, request)
	return reply, true, err
}

func (r *rootRoad) endDialing() error { return r.client.Close() }

func (r *rootRoad) shutdown(ctx context.Context) error { return r.server.Shutdown(ctx) }

func (r *rootRoad) done() {}

// bareRoad is sessions whose carriers are conns of Dial and Listen.
type bareRoad struct {
	a, b     host.Host
	listener net.Listener
	acceptor *session.Acceptor
	muxes    [2]*session.Mux
	cfg      session.Config // of the dialing side
	serving  sync.WaitGroup

	mu     sync.Mutex
	dialed []*session.Session
}

func newBareRoad(t testing.TB, m *model, a, b host.Host) *bareRoad {
	p := m.plan
	cfg := session.Config{
		Tag: tag, DisableCompression: !p.compress, Heartbeat: p.heartbeat, ResumeWindow: p.resumeWindow, CloseTimeout: closeTimeout,
		ReplayWindow: p.replayWindow, StreamWindow: p.streamWindow, MessageWindow: p.messageWindow, OnUndelivered: m.undelivered,
	}
	if p.sealed {
		key, err := cheapKeys()
		require.NoError(t, err)
		cfg.Keys, err = psk.NewKeyring(key)
		require.NoError(t, err)
	}
	r := &bareRoad{a: a, b: b, muxes: [2]*session.Mux{session.NewMux(), session.NewMux()}}
	accept := session.AcceptorConfig{Config: cfg, OnSession: m.accepted}
	accept.Local, accept.Mux, accept.MaxRequests, accept.OnState = b.ID().String(), r.muxes[accepting], p.maxRequests, m.onState("accepting")
	var err error
	r.acceptor, err = session.NewAcceptor(&accept)
	require.NoError(t, err)
	r.cfg = cfg
	r.cfg.Local, r.cfg.Mux, r.cfg.OnState = a.ID().String(), r.muxes[dialing], m.onState("dialing")
	r.listener, err = peerlane.Listen(b, tag)
	require.NoError(t, err)
	r.serving.Go(r.serve)
	return r
}

// serve takes conns until the listener is closed.
func (r *bareRoad) serve() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.serving.Go(func() { _ = r.acceptor.Serve(c, r.a.ID().String()) }) // the dialing side has the error
	}
}

func (r *bareRoad) open(ctx context.Context, _ session.Want) (net.Conn, error) {
	return peerlane.Dial(ctx, r.a, r.b.ID(), tag)
}

func (r *bareRoad) connect(ctx context.Context) (*session.Session, error) {
	c, err := r.open(ctx, session.Want{})
	if err != nil {
		return nil, err
	}
	s, err := session.Dial(ctx, c, r.b.ID().String(), r.open, &r.cfg)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.dialed = append(r.dialed, s)
	}
	return s, err
}

func (r *bareRoad) handlers(side int) registrar { return r.muxes[side] }

func (r *bareRoad) call(context.Context, []byte) ([]byte, bool, error) { return nil, false, nil }

func (r *bareRoad) endDialing() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	errs := make([]error, len(r.dialed))
	var closing sync.WaitGroup
	for i, s := range r.dialed {
		closing.Go(func() { errs[i] = s.Close() })
	}
	closing.Wait()
	return errors.Join(errs...)
}

func (r *bareRoad) shutdown(ctx context.Context) error { return r.acceptor.Shutdown(ctx) }

func (r *bareRoad) done() {
	_ = r.listener.Close()
	r.serving.Wait()
}

// breakSomething is one fault. It returns its name, and what ends it.
func (m *model) breakSomething(d dice) (name string, mend func()) {
	nothing := func() {}
	switch d.IntN(9) {
	case 0, 1:
		m.fault.Cut()
		return "cut", nothing
	case 2:
		m.fault.Freeze()
		return "freeze", m.fault.Thaw
	case 3:
		m.fault.SetDelay(time.Duration(5+d.IntN(25)) * time.Millisecond)
		return "delay", func() { m.fault.SetDelay(0) }
	case 4:
		_ = m.a.Network().ClosePeer(m.b.ID()) // who is not connected need not be closed
		return "close by the dialing host", nothing
	case 5:
		_ = m.b.Network().ClosePeer(m.a.ID()) // likewise
		return "close by the accepting host", nothing
	case 6, 7:
		return m.move(d), nothing
	}
	if udp, ok := m.fault.(*faultnet.UDP); ok {
		if d.oneIn(3) {
			udp.Rebind()
			return "rebind", nothing
		}
		udp.SetLoss(0.01+d.Float64()/25, d.Uint64())
		return "loss", func() { udp.SetLoss(0, 0) }
	}
	m.fault.(*faultnet.TCP).CutAfter(int64(d.IntN(200_000)))
	return "cut after some bytes", nothing
}

// move has a session change to another carrier, or look whether its own is alive.
func (m *model) move(d dice) string {
	s := m.talks[d.IntN(len(m.talks))].sides[dialing]
	if d.oneIn(4) {
		s.Probe()
		return "probe"
	}
	m.goWork("move", func(string) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if s.Reconnect(ctx) == nil {
			m.sum.moves.Add(1)
		}
	})
	return "move"
}
