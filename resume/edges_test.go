package resume

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/edges"
)

// exercise opens a Conn with these Options and uses it over a loss, or finds that it cannot be opened. Whatever happens is an error,
// in the end, and never a panic.
func exercise(t *testing.T, dial, accept *Options) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		l, err := NewListener(h, accept)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			h = newHub()
			l, err = NewListener(h, nil)
			require.NoError(t, err)
		}
		var mu sync.Mutex
		var links []*faultnet.Link
		cut := func() {
			mu.Lock()
			defer mu.Unlock()
			for _, link := range links {
				link.Cut()
			}
		}
		h.onLink(func(link *faultnet.Link) {
			mu.Lock()
			defer mu.Unlock()
			links = append(links, link)
		})
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					_, _ = c.Read(make([]byte, 100))
					_, _ = c.Write(make([]byte, 5000))
					_ = c.Close()
				}()
			}
		}()
		tries := 0
		c, err := Dial(func(ctx context.Context) (net.Conn, error) {
			if tries++; tries%3 == 2 {
				return nil, errRefused
			}
			return h.dial(ctx)
		}, dial)
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			_, _ = c.Write([]byte("x"))
			cut()
			_, _ = c.Read(make([]byte, 100))
			_ = c.Reconnect()
			_, _ = c.Write(make([]byte, 100))
			time.Sleep(time.Minute)
			_, _ = c.CloseWrite(), c.CloseRead()
			_ = c.Close()
			<-c.Done()
		}
		cut()
		require.NoError(t, l.Close())
		l.mu.Lock()
		var left []*Conn
		for _, c := range l.conns {
			left = append(left, c)
		}
		l.mu.Unlock()
		for _, c := range left {
			c.Abort(net.ErrClosed)
			<-c.Done()
		}
	})
}

func TestNoOptionsAreAPanic(t *testing.T) {
	edges.Each(nil, func(o Options, what string) {
		t.Log(what)
		o.Drop = nil
		exercise(t, &o, nil)
		exercise(t, nil, &o)
	})
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 2))
		t.Log("seed", seed)
		dial, accept := edges.Some[Options](nil, rng), edges.Some[Options](nil, rng)
		dial.Drop, accept.Drop = nil, nil
		exercise(t, &dial, &accept)
	}
	exercise(t, nil, nil)
}

func TestNoCallIsAPanic(t *testing.T) {
	for seed := range uint64(60) {
		t.Log("seed", seed)
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			l, err := NewListener(h, nil)
			require.NoError(t, err)
			given := edges.As[error](edges.As[net.Conn](edges.Of()), errRefused)
			use := func(c *Conn, n uint64) {
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				rng := rand.New(rand.NewPCG(seed, n))
				edges.Methods(given, rng, 30, c, "Close", "Abort", "CloseWrite", "CloseRead", "SetDeadline", "SetReadDeadline", "SetWriteDeadline", "AwaitAcked")
				edges.Methods(given, rng, 10, c, "SetDeadline", "SetReadDeadline", "SetWriteDeadline", "Abort", "AwaitAcked")
				_ = c.Close()
				edges.Methods(given, rng, 10, c)
				c.Abort(errRefused)
				<-c.Done()
			}
			served := make(chan struct{})
			go func() {
				defer close(served)
				if c, err := l.Accept(); err == nil {
					use(c.(*Conn), 1)
				}
			}()
			c, err := Dial(h.dial, nil)
			require.NoError(t, err)
			use(c, 2)
			<-served
			edges.Methods(given, rand.New(rand.NewPCG(seed, 3)), 10, l, "Accept")
			require.NoError(t, l.Close())
		})
	}
}
