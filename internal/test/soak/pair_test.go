package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/session"
)

const tag protocol.ID = "/soak/1.0.0"

// patience bounds one piece of work. A cut takes much less, unless QUIC finds out only by its own timeout.
const patience = 15 * time.Second

// lastTries is how often a lane that has done nothing tries again, once the network is mended.
const lastTries = 5

// A pair is two hosts with a network between them, a client and a server.
type pair struct {
	t         *testing.T
	transport testnet.Transport
	a, b      host.Host
	fault     faultnet.Fault
	client    *peerlane.Client
	server    *peerlane.Server
	keeper    *peerlane.Keeper
	lanes     []*lane
	seed      uint64
	runs      uint64
	faults    atomic.Int64
}

// A lane is one kind of work, and what became of it.
type lane struct {
	name         string
	do           func(ctx context.Context, s *session.Session, d *rand.Rand) error
	done, failed atomic.Int64
}

func newPair(t *testing.T, tr testnet.Transport, seed uint64) *pair {
	p := &pair{t: t, transport: tr, seed: seed}
	p.a, p.b, p.fault = testnet.ProxiedForLong(t, tr)
	var err error
	p.server, err = peerlane.NewServer(p.b, &peerlane.ServerConfig{
		AdmitAll: true, EnableCompression: true, Heartbeat: time.Second, ResumeWindow: patience,
	})
	require.NoError(t, err)
	p.client, err = peerlane.NewClient(p.a, &peerlane.ClientConfig{
		AdmitAll: true, EnableCompression: true, Heartbeat: time.Second, ResumeWindow: patience, IdleConnTimeout: patience / 3,
	})
	require.NoError(t, err)
	p.serve()
	require.NoError(t, p.server.Handle(tag, echo))
	p.keeper, err = p.client.Keep(p.b.ID(), tag, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, p.keeper.Close())
		require.NoError(t, p.client.Close())
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, p.server.Shutdown(ctx))
	})
	return p
}

// work does all lanes' work for so long, with faults, and returns once it is done and the network is mended.
func (p *pair) work(d time.Duration) {
	ctx, cancel := context.WithTimeout(p.t.Context(), d)
	defer cancel()
	p.runs++
	var all sync.WaitGroup
	for i, l := range p.lanes {
		all.Go(func() { p.repeat(ctx, l, rand.New(rand.NewPCG(p.seed, p.runs<<8|uint64(i)))) })
	}
	all.Go(func() { p.breakIt(ctx, rand.New(rand.NewPCG(p.seed, p.runs<<8|255))) })
	all.Wait()
}

// repeat does a lane's work until ctx is over, and once in any case. What fails because of the network is done again.
func (p *pair) repeat(ctx context.Context, l *lane, d *rand.Rand) {
	for tries := 0; ctx.Err() == nil || l.done.Load() == 0 && tries < lastTries; {
		if ctx.Err() != nil {
			tries++
		}
		bounded, cancel := context.WithTimeout(context.Background(), patience)
		s, err := p.keeper.Get(bounded)
		if err == nil {
			err = l.do(bounded, s, d)
		}
		cancel()
		switch {
		case err == nil:
			l.done.Add(1)
		case isLoss(err):
			l.failed.Add(1)
		default:
			p.t.Errorf("%s over %s: %v", l.name, p.transport, err)
			return
		}
		pause(ctx, time.Duration(d.IntN(20))*time.Millisecond)
	}
}

// isLoss reports whether an error is one that a network which breaks excuses, or a server that drains a session, after
// MaxRequestsPerConn.
func isLoss(err error) bool {
	return slices.ContainsFunc([]error{
		session.ErrSessionLost, session.ErrUnavailable, session.ErrGoingAway, net.ErrClosed, io.ErrUnexpectedEOF, os.ErrDeadlineExceeded,
		context.DeadlineExceeded, syscall.ECONNRESET, syscall.EPIPE,
	}, func(target error) bool { return errors.Is(err, target) })
}

// breakIt breaks the network now and then, and mends it.
func (p *pair) breakIt(ctx context.Context, d *rand.Rand) {
	for ctx.Err() == nil {
		pause(ctx, time.Duration(200+d.IntN(1500))*time.Millisecond)
		p.faults.Add(1)
		switch d.IntN(6) {
		case 0:
			p.fault.Freeze()
			pause(ctx, time.Duration(d.IntN(500))*time.Millisecond)
			p.fault.Thaw()
		case 1:
			p.fault.SetDelay(time.Duration(d.IntN(30)) * time.Millisecond)
			pause(ctx, time.Duration(d.IntN(2000))*time.Millisecond)
			p.fault.SetDelay(0)
		case 2:
			_ = p.a.Network().ClosePeer(p.b.ID()) // who is not connected need not be closed
		case 3:
			_ = p.b.Network().ClosePeer(p.a.ID()) // likewise
		default:
			p.cut(d)
		}
	}
}

// cut cuts a TCP connection. A QUIC connection survives a new port.
func (p *pair) cut(d *rand.Rand) {
	switch f := p.fault.(type) {
	case *faultnet.TCP:
		if d.IntN(2) == 0 {
			f.CutAfter(int64(d.IntN(200_000)))
			return
		}
		f.Cut()
	case *faultnet.UDP:
		f.Rebind()
	}
}

// sum says what was done.
func (p *pair) sum() string {
	all := make([]string, len(p.lanes))
	for i, l := range p.lanes {
		all[i] = fmt.Sprintf("%d %s (%d lost)", l.done.Load(), l.name, l.failed.Load())
	}
	return fmt.Sprintf("%d faults, %s", p.faults.Load(), strings.Join(all, ", "))
}

// check requires that every lane has done work.
func (p *pair) check() {
	for _, l := range p.lanes {
		require.NotZero(p.t, l.done.Load(), "%s over %s, %d lost", l.name, p.transport, l.failed.Load())
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
