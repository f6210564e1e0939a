package session

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/edges"
	"github.com/peerlane/peerlane/psk"
)

// given are what edges cannot make.
func given(t *testing.T) edges.Given {
	return edges.Of((*psk.Keyring)(nil), keyring(t, 0), new(psk.Keyring), (*slog.Logger)(nil), slog.New(slog.DiscardHandler))
}

// exercise opens a session with these configs and uses all of it, or finds that it cannot be opened. Whatever happens is an error,
// within some time, and never a panic.
func exercise(t *testing.T, dial Config, accept AcceptorConfig, st *StreamOptions) {
	synctest.Test(t, func(t *testing.T) {
		var serving sync.WaitGroup
		ours, theirs := dial.Mux, accept.Mux
		if theirs == nil {
			theirs = NewMux()
			accept.Mux = theirs
		}
		theirs.SetCall(func(m *Message) ([]byte, error) { return m.Value, nil })
		theirs.SetLink("link", func(m *Message) { _ = m.Reply(m.Value) })
		theirs.SetStream("stream", func(st *Stream) { _, _ = st.Write([]byte("x")); _ = st.CloseWrite() })
		if ours != nil {
			ours.SetLink("link", func(m *Message) {})
		}
		a, err := NewAcceptor(&accept)
		if err != nil {
			require.Contains(t, err.Error(), "session: config: ")
			a, err = NewAcceptor(&AcceptorConfig{Config: Config{Mux: theirs}})
			require.NoError(t, err)
		}
		var links []*faultnet.Link
		var mu sync.Mutex
		tries := 0
		open := func(context.Context, Want) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if tries++; tries%3 == 2 {
				return nil, errNoRoute
			}
			l := faultnet.NewLink(faultnet.LinkOptions{Delay: time.Millisecond})
			links = append(links, l)
			here, there := l.Ends()
			serving.Go(func() { _ = a.Serve(there, dial.Local) })
			return here, nil
		}
		conn, _ := open(t.Context(), Want{})
		s, err := Dial(t.Context(), conn, accept.Local, open, &dial)
		if err != nil {
			finish(t, a, &serving)
			return
		}
		use := func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, _ = s.Call(ctx, "", make([]byte, 2000))
			_, _ = s.SendWait(ctx, "link", []byte("x"))
			for range 3 {
				_ = s.Send(ctx, "link", make([]byte, 100))
			}
			_ = s.Flush(ctx)
			_, _ = s.Ping(ctx)
			for _, o := range []*StreamOptions{st, nil, {Dedicated: true}, {Dedicated: true, Resumable: true}} {
				if st, err := s.OpenStream(ctx, "stream", o); err == nil {
					_ = st.SetDeadline(time.Now().Add(time.Minute))
					_, _ = st.Read(make([]byte, 10))
					_, _ = st.Write(make([]byte, 10))
					_ = st.Close()
				}
			}
			_ = s.Snapshot()
		}
		use()
		mu.Lock()
		for _, l := range links {
			l.Cut()
		}
		mu.Unlock()
		use()
		_ = s.Reconnect(within(t, time.Minute))
		use()
		s.Drain("over")
		_ = s.Close()
		finish(t, a, &serving)
	})
}

// finish ends an Acceptor, within an hour.
func finish(t *testing.T, a *Acceptor, serving *sync.WaitGroup) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = a.Shutdown(ctx)
	done := make(chan struct{})
	go func() { serving.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(1<<63 - 1):
		require.Fail(t, "a carrier is served for ever")
	}
}

func TestNoConfigIsAPanic(t *testing.T) {
	g := given(t)
	n := 0
	edges.Each(g, func(c Config, what string) {
		n++
		t.Log(what)
		exercise(t, c, AcceptorConfig{}, nil)
	})
	edges.Each(g, func(c AcceptorConfig, what string) {
		n++
		t.Log(what)
		exercise(t, Config{Keys: c.Keys}, c, nil)
	})
	edges.Each(g, func(o StreamOptions, _ string) { exercise(t, Config{}, AcceptorConfig{}, &o) })
	require.Greater(t, n, 1000)
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 1))
		t.Log(fmt.Sprint("seed ", seed))
		exercise(t, edges.Some[Config](g, rng), edges.Some[AcceptorConfig](g, rng), nil)
	}
}

func TestNoCallIsAPanic(t *testing.T) {
	for seed := range uint64(60) {
		t.Log("seed", seed)
		rng := rand.New(rand.NewPCG(seed, 15))
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, Config{}, AcceptorConfig{})
			over, cancel := context.WithCancel(t.Context())
			cancel()
			live := within(t, time.Minute)
			g := edges.As[Codec](edges.Of("", "x", "json", "link", strings.Repeat("n", 255), strings.Repeat("n", 256), "\x00\xff"), JSON)
			g[reflect.TypeFor[context.Context]()] = []any{over, live}
			g[reflect.TypeFor[any]()] = []any{nil, 1, "x", func() {}, new(int)}
			g[reflect.TypeFor[error]()] = []any{nil, errNoRoute, &Error{}, &Error{Code: codes.GoingAway}, &Error{Code: 1 << 31, RetryAfter: -1}}
			p.mux.SetLink("link", func(m *Message) {
				edges.Methods(g, rand.New(rand.NewPCG(seed, uint64(len(m.Value)))), 5, m)
			})
			p.mux.SetStream("x", func(st *Stream) {
				_ = st.SetDeadline(time.Now().Add(time.Minute))
				_, _ = st.Read(make([]byte, 10))
			})
			edges.Methods(g, rng, 20, p.mux, "SetLink", "SetStream", "SetDefaultLink", "SetDefaultStream")
			for n := range 10 {
				_, _ = p.dialer.SendWait(live, "link", make([]byte, 1+n))
			}
			edges.Methods(g, rng, 40, p.dialer, "Close", "Drain", "Shutdown")
			if st, err := p.dialer.OpenStream(live, "x", nil); err == nil {
				_ = st.SetDeadline(time.Now().Add(time.Second))
				edges.Methods(g, rng, 20, st, "SetDeadline", "SetReadDeadline", "SetWriteDeadline")
			}
			edges.Methods(edges.Of(-1, 0, math.MaxInt), rng, 30, &Quota{MaxSessions: 1, MaxCalls: 1, MaxBytes: 1})
			edges.Methods(g, rng, 10, p.accepted)
			edges.Methods(g, rng, 10, p.dialer)
			_ = p.dialer.Close()
			edges.Methods(g, rng, 10, p.dialer)
		})
	}
}
