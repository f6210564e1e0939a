package node_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/node"
)

// crowdOf is how many hosts TestACrowdHasTenThousandStreams has. `make nightly` has 1000.
var crowdOf = flag.Int("crowd", 50, "hosts that share 10,000 streams, and as many calls, to one host")

const (
	connTag   = "/crowd/conn/1"
	callTag   = "/crowd/call/1"
	crowdTime = 2 * time.Minute
)

// A crowd of hosts, over TCP and over QUIC, holds 10,000 streams open to one host, and waits for 10,000 calls at the same time. None is refused,
// and each works. Of the limits, only Limits.Peers is set.
func TestACrowdHasTenThousandStreams(t *testing.T) {
	began := time.Now()
	host, err := node.New(t.Context(), &node.Options{Loopback: true, Limits: &node.Limits{Peers: *crowdOf}})
	require.NoError(t, err)
	defer func() { require.NoError(t, host.Close()) }()
	defer echo(t, host)()
	var handled atomic.Int64
	released := make(chan struct{})
	defer serve(t, host, func(ctx context.Context, r *peerlane.Request) ([]byte, error) {
		handled.Add(1)
		select {
		case <-released:
			return r.Value, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})()

	crowd, share := make([]*guest, *crowdOf), inAll / *crowdOf
	for i := range crowd {
		crowd[i], err = newGuest(host, i)
		require.NoError(t, err)
		defer func() { require.NoError(t, crowd[i].Close()) }()
	}
	ctx, cancel := context.WithTimeout(t.Context(), crowdTime)
	defer cancel()
	each(t, crowd, atOnce, func(g *guest) error { return g.open(ctx, share) })
	opened := time.Since(began)
	var called sync.WaitGroup
	defer func() {
		cancel()
		called.Wait()
	}()
	called.Go(func() { each(t, crowd, 0, func(g *guest) error { return g.call(ctx, share) }) })
	require.Eventually(t, func() bool { return handled.Load() == int64(share*len(crowd)) }, crowdTime, 10*time.Millisecond)
	t.Logf("%d conns of %d hosts after %v, and %d calls after %v", share*len(crowd), len(crowd), opened, handled.Load(), time.Since(began))

	streams := 0
	for _, c := range host.Host().Network().Conns() {
		for _, s := range c.GetStreams() {
			if s.Protocol() == connTag {
				streams++
			}
		}
	}
	require.Equal(t, share*len(crowd), streams)
	each(t, crowd, 0, func(g *guest) error { return g.use() })
	close(released)
	called.Wait()
	each(t, crowd, 0, func(g *guest) error { return g.client.Close() })
	t.Logf("all answered after %v", time.Since(began))
}

// atOnce is how many guests connect at the same time: all of them share the processors of the host, and libp2p gives a handshake 5 s.
const atOnce = 50

// each runs f for all guests at the same time, or for atOnce of them if that is not zero.
func each(t *testing.T, crowd []*guest, atOnce int, f func(*guest) error) {
	errs := make([]error, len(crowd))
	places := make(chan struct{}, cmp.Or(atOnce, len(crowd)))
	var all sync.WaitGroup
	for i, g := range crowd {
		all.Go(func() {
			places <- struct{}{}
			errs[i] = f(g)
			<-places
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Errorf("%.2000s", err)
	}
}

// echo echoes conns. stop returns when they have ended.
func echo(t *testing.T, host *node.Node) (stop func()) {
	l, err := peerlane.ListenConfig{Backlog: inAll}.Listen(host.Host(), connTag)
	require.NoError(t, err)
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				_, _ = io.Copy(c, c) // the other side finds that bytes are missing
				_ = c.Close()
			})
		}
	})
	return func() {
		require.NoError(t, l.Close())
		conns.Wait()
	}
}

// serve answers calls with f until stop is called.
func serve(t *testing.T, host *node.Node, f peerlane.Handler) (stop func()) {
	config := peerlane.DefaultServerConfig()
	config.MaxConcurrentConns = 2 * inAll
	server, err := peerlane.NewServer(host.Host(), config)
	require.NoError(t, err)
	require.NoError(t, server.Handle(callTag, f))
	return func() { require.NoError(t, server.Stop()) }
}

// A guest is a host of the crowd.
type guest struct {
	*node.Node
	to     peer.ID
	client *peerlane.Client
	conns  []net.Conn
}

// newGuest returns a guest that knows the address of the host of one transport, TCP and QUIC in turn.
func newGuest(host *node.Node, number int) (*guest, error) {
	n, err := node.New(context.Background(), &node.Options{NoListen: true, Limits: &node.Limits{Peers: 1}})
	if err != nil {
		return nil, err
	}
	info := peer.AddrInfo{ID: host.ID()}
	for _, a := range host.Info().Addrs {
		if _, err := a.ValueForProtocol([]int{ma.P_TCP, ma.P_QUIC_V1}[number%2]); err == nil {
			info.Addrs = append(info.Addrs, a)
		}
	}
	n.Remember(info)
	config := peerlane.DefaultClientConfig()
	config.ReadTimeout, config.ConnectTimeout = crowdTime, crowdTime
	client, err := peerlane.NewClient(n.Host(), config)
	return &guest{Node: n, to: host.ID(), client: client}, err
}

// open opens n conns.
func (g *guest) open(ctx context.Context, n int) error {
	for range n {
		c, err := peerlane.Dial(ctx, g.Host(), g.to, connTag)
		if err != nil {
			return fmt.Errorf("conn %d: %w", len(g.conns)+1, err)
		}
		g.conns = append(g.conns, c)
	}
	return g.use()
}

// use sends a few bytes on each conn, and reads their echo.
func (g *guest) use() error {
	text := []byte("hello")
	for i, c := range g.conns {
		got := make([]byte, len(text))
		_ = c.SetDeadline(time.Now().Add(crowdTime)) // Write returns the same error
		if _, err := c.Write(text); err != nil {
			return fmt.Errorf("conn %d: %w", i+1, err)
		}
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(text, got) {
			return fmt.Errorf("conn %d: %q: %w", i+1, got, err)
		}
	}
	return nil
}

// call makes n calls at the same time, and closes the conns when they are answered.
func (g *guest) call(ctx context.Context, n int) error {
	errs := make([]error, n)
	var calls sync.WaitGroup
	for i := range n {
		calls.Go(func() {
			answer, err := g.client.Send(ctx, g.to, callTag, []byte{byte(i)})
			if err == nil && !bytes.Equal(answer, []byte{byte(i)}) {
				err = fmt.Errorf("the answer is %v", answer)
			}
			errs[i] = err
		})
	}
	calls.Wait()
	for _, c := range g.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
