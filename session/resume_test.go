package session

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/zstd"
)

// shaky is a pair of sides whose carriers are links that break.
type shaky struct {
	*pair
	serving sync.WaitGroup
	mu      sync.Mutex
	rng     *rand.Rand
	links   []*faultnet.Link
	calm    bool // from now on no link breaks by itself
}

// newShaky opens a session whose carriers break by themselves, after some bytes.
func newShaky(t *testing.T, seed uint64, dial Config, accept AcceptorConfig, prepare func(*Mux)) *shaky {
	t.Helper()
	t.Logf("seed %d", seed)
	s := &shaky{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}, rng: rand.New(rand.NewPCG(seed, 0))}
	prepare(s.mux)
	dial.Mux, accept.Mux = s.ours, s.mux
	dial.Local, accept.Local = "alice", "bob"
	dial.pacer, accept.pacer = zstd.NewPacer(), zstd.NewPacer() // what bodies of earlier bubbles cost is in the future of this one
	opened := make(chan *Session, 1)
	accept.OnSession = func(a *Session) { opened <- a }
	var err error
	s.acceptor, err = NewAcceptor(&accept)
	require.NoError(t, err)
	first, _ := s.open(t.Context(), Want{})
	s.dialer, err = Dial(t.Context(), first, "bob", s.open, &dial)
	require.NoError(t, err)
	s.accepted = <-opened
	t.Cleanup(func() {
		_ = s.dialer.Close()
		_ = s.accepted.Close()
		<-s.dialer.readerDone
		<-s.accepted.readerDone
		s.serving.Wait()
	})
	return s
}

func (s *shaky) open(context.Context, Want) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	link := faultnet.NewLink(faultnet.LinkOptions{Delay: time.Duration(s.rng.IntN(5e6)), CutDelivers: s.rng.IntN(2) == 0})
	if !s.calm && len(s.links) > 0 { // the first carries the session's own hello
		link.CutAfter(int64(s.rng.IntN(1 << s.rng.IntN(20))))
	}
	s.links = append(s.links, link)
	here, there := link.Ends()
	s.serving.Go(func() { _ = s.acceptor.Serve(there, "alice") })
	if len(s.links) > 1 && s.rng.IntN(20) == 0 {
		link.Cut()
		return nil, errors.New("no route")
	}
	return here, nil
}

// newest returns the link that was opened last.
func (s *shaky) newest() *faultnet.Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links[len(s.links)-1]
}

// Row: S6. Row: N18.
func TestNothingIsLostRepeatedOrReorderedOverManyCuts(t *testing.T) {
	for _, window := range []int{4 << 10, 64 << 10, 1 << 20} {
		for _, cuts := range []int{1, 10, 100, 1000} {
			inBubble(t, func(t *testing.T) {
				testManyCuts(t, window, cuts)
			})
		}
	}
}

func testManyCuts(t *testing.T, window, cuts int) {
	seed := rand.Uint64()
	var (
		mu   sync.Mutex
		runs = map[uint64]int{}
		told []uint64
	)
	cfg := Config{ReplayWindow: window, ResumeWindow: time.Hour, RequestTimeout: -1}
	s := newShaky(t, seed, cfg, AcceptorConfig{Config: cfg}, func(m *Mux) {
		m.SetCall(func(m *Message) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			runs[binary.BigEndian.Uint64(m.Value)]++
			return bytes.Clone(m.Value), nil
		})
		m.SetLink("tell", func(m *Message) { told = append(told, binary.BigEndian.Uint64(m.Value)) })
		m.SetStream("echo", func(st *Stream) { _, _ = io.Copy(st, st) })
	})
	ctx := t.Context()
	done := make(chan struct{})
	var wg, breaker sync.WaitGroup
	breaker.Go(func() {
		rng := rand.New(rand.NewPCG(seed, 9))
		for range cuts {
			time.Sleep(time.Duration(rng.IntN(4e6)))
			switch rng.IntN(4) {
			case 0:
				_ = s.dialer.Reconnect(ctx)
			case 1:
				s.newest().CutAfter(int64(rng.IntN(3000)))
			default:
				s.newest().Cut()
			}
			select {
			case <-done:
				return
			default:
			}
		}
		s.mu.Lock()
		s.calm = true
		s.mu.Unlock()
	})
	const calls, messages = 200, 300
	for c := range 4 {
		wg.Go(func() {
			for i := range calls / 4 {
				body := make([]byte, 8+rand.IntN(1<<rand.IntN(15)))
				binary.BigEndian.PutUint64(body, uint64(c*1000+i))
				answer, err := s.dialer.Call(ctx, "", body)
				require.NoError(t, err)
				require.Equal(t, body, answer)
				time.Sleep(time.Duration(rand.IntN(2e6)))
			}
		})
	}
	wg.Go(func() {
		for i := range messages {
			require.NoError(t, s.dialer.Send(ctx, "tell", binary.BigEndian.AppendUint64(nil, uint64(i))))
			time.Sleep(time.Duration(rand.IntN(1e6)))
		}
		require.NoError(t, s.dialer.Flush(ctx))
	})
	wg.Go(func() {
		st, err := s.dialer.OpenStream(ctx, "echo", nil)
		require.NoError(t, err)
		data := make([]byte, 400<<10)
		_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
		wg.Go(func() {
			_, err := st.Write(data)
			require.NoError(t, err)
			require.NoError(t, st.CloseWrite())
		})
		got, err := io.ReadAll(st)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got), "the stream came back with other bytes")
	})
	wg.Wait()
	close(done)
	breaker.Wait()
	require.Len(t, runs, calls)
	for id, n := range runs {
		require.Equal(t, 1, n, "call %d ran %d times", id, n)
	}
	require.Len(t, told, messages)
	for i, v := range told {
		require.Equal(t, uint64(i), v)
	}
	v := s.dialer.Snapshot()
	t.Logf("window %d, %d cuts: %d resumes, %d migrations, %d bytes again", window, cuts, v.Resumes, v.Migrations, v.Resent)
}
