package session

import (
	"bytes"
	"context"
	"encoding/binary"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/zstd"
)

// runs is a zstd frame of raw zeros in run lengths alone (RFC 8878, 3.1.1), which expands as much as any can. raw is a multiple of 128 KiB.
func runs(raw int) []byte {
	const block = 128 << 10
	b := binary.LittleEndian.AppendUint64([]byte("\x28\xb5\x2f\xfd\xc0\x38"), uint64(raw))
	for left := raw; left > 0; left -= block {
		head := block<<3 | 1<<1
		if left == block {
			head |= 1
		}
		b = append(b, byte(head), byte(head>>8), byte(head>>16), 0)
	}
	return b
}

// A body that expands more than any honest one is refused alone, by its head, and nothing is reserved for it.
func TestABodyThatExpandsTooMuchIsRefusedAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		quota := new(Quota)
		w := dialed(t, Config{Quota: quota}, frame.CapZstd, generous)
		ran := 0
		w.s.cfg.Mux.SetCall(func(m *Message) ([]byte, error) { ran++; return nil, nil })
		w.s.cfg.Mux.SetLink("m", func(*Message) { ran++ })
		const raw = 32 << 20
		bomb := runs(raw)
		head := func(typ frame.Type, link string) []byte {
			return start(typ, frame.FlagCompressed, frame.Start{Total: len(bomb), Raw: raw, Link: link}, bomb)
		}
		w.send(frame.TypeRequest, frame.FlagCompressed, 2, head(frame.TypeRequest, ""))
		f := w.wantFailure(frame.TypeError, 2, codes.TooLarge)
		require.Contains(t, f.Text, "send them as they are")
		w.send(frame.TypeMessage, frame.FlagCompressed, 4, head(frame.TypeMessage, "m"))
		w.wantFailure(frame.TypeError, 4, codes.TooLarge)
		w.want(frame.TypeMessageAck, 4)
		require.Zero(t, quota.Snapshot().Bytes)

		got := make(chan error, 1)
		go func() {
			_, err := w.s.Call(t.Context(), "", nil)
			got <- err
		}()
		id := w.want(frame.TypeRequest, 1).ID
		w.send(frame.TypeResponse, frame.FlagCompressed, id, head(frame.TypeResponse, ""))
		w.want(frame.TypeCancel, id)
		err := <-got
		require.ErrorIs(t, err, ErrTooLarge)
		require.Equal(t, codes.ReplyTooLarge, asError(t, err, Delivered).Code)

		least := runs(1 << 20) // what any body may expand to
		w.send(frame.TypeRequest, frame.FlagCompressed, 6,
			start(frame.TypeRequest, frame.FlagCompressed, frame.Start{Total: len(least), Raw: 1 << 20}, least))
		w.want(frame.TypeResponse, 6)
		w.wantAlive()
		require.Equal(t, 1, ran)
	})
}

// Zeros and logs, of any size up to MaxMessage, arrive whole in both directions and on every kind of message, compressed.
func TestHonestBodiesThatExpandGreatlyArrive(t *testing.T) {
	zeros := make([]byte, 32<<20)
	log := bytes.Repeat([]byte("2026-11-30T23:57:41Z INFO request served path=/healthz status=200 dur=1ms\n"), 100_000)
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetCall(echo)
		handled := 0
		p.mux.SetLink("m", func(m *Message) { handled += len(m.Value) })
		for _, body := range [][]byte{zeros, log, zeros[:17<<10]} {
			got, err := p.dialer.Call(t.Context(), "", body)
			require.NoError(t, err)
			require.True(t, bytes.Equal(body, got))
			require.NoError(t, p.dialer.Send(t.Context(), "m", body))
			require.NoError(t, p.dialer.Flush(t.Context()))
		}
		require.Equal(t, len(zeros)+len(log)+17<<10, handled)
		require.Less(t, p.dialer.Snapshot().BytesOut, uint64(1<<20), "it was compressed")
	})
}

// A peer that sends bodies that expand greatly without an end has them unpacked at a bounded rate. Beyond that they are refused for now,
// one by one, and the session and its other calls go on.
func TestBodiesThatExpandGreatlyAreRefusedForNow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := dialed(t, Config{}, frame.CapZstd, generous)
		var ran atomic.Int64
		w.s.cfg.Mux.SetCall(func(*Message) ([]byte, error) { ran.Add(1); return nil, nil })
		bomb, ok := frame.Compress(make([]byte, 32<<20))
		require.True(t, ok)
		const bombs = 40 // more than the burst of a peer and what it may have in the longest wait
		for i := range uint64(bombs) {
			w.send(frame.TypeRequest, frame.FlagCompressed, 2+2*i,
				start(frame.TypeRequest, frame.FlagCompressed, frame.Start{Total: len(bomb), Raw: 32 << 20}, bomb))
		}
		answered, refused := 0, 0
		for range bombs {
			switch g := <-w.got; g.Type {
			case frame.TypeResponse:
				answered++
			case frame.TypeError:
				f, err := frame.ConsumeFailure(g.body)
				require.NoError(t, err)
				require.Equal(t, codes.Unavailable, f.Code)
				require.Positive(t, f.RetryAfter)
				refused++
			}
		}
		require.EqualValues(t, ran.Load(), answered)
		require.Positive(t, answered)
		require.Greater(t, refused, bombs/4)
		w.request(1000, "", "small")
		w.want(frame.TypeResponse, 1000)
		w.wantAlive()
	})
}

// takeCoders takes all turns that a peer can have at once.
func takeCoders(t *testing.T, peer string) (release func()) {
	var all []*zstd.Turn
	for range max(1, runtime.GOMAXPROCS(0)/4) {
		turn, err := zstd.Await(zstd.Peer{Network: peer, ID: peer}, nil, 64<<10, false)
		require.NoError(t, err)
		all = append(all, turn)
	}
	return func() {
		for _, turn := range all {
			turn.Done()
		}
	}
}

// A compressed request that waits for its turn takes no handler's place and no room but that of its compressed body, and goes when the
// session is aborted.
func TestABodyThatWaitsToBeUnpackedTakesNoPlace(t *testing.T) {
	quota := &Quota{MaxCalls: 1}
	p := newPair(t, Config{ResumeWindow: -1}, AcceptorConfig{Config: Config{Quota: quota, ResumeWindow: -1}})
	p.mux.SetCall(echo)
	release := takeCoders(t, "alice")
	body := make([]byte, 64<<10)
	call := func() <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := p.dialer.Call(context.Background(), "", body)
			done <- err
		}()
		return done
	}
	waits := func() bool {
		p.accepted.mu.Lock()
		defer p.accepted.mu.Unlock()
		return p.accepted.requests.running == 1
	}
	first := call()
	require.Eventually(t, waits, 30*time.Second, time.Millisecond)
	require.Zero(t, quota.Snapshot().Calls)
	require.Less(t, quota.Snapshot().Bytes, int64(1000))
	_, err := p.dialer.Call(t.Context(), "", []byte("small"))
	require.NoError(t, err, "the one place is free")
	release()
	require.NoError(t, <-first)

	release = takeCoders(t, "alice")
	second := call()
	require.Eventually(t, waits, 30*time.Second, time.Millisecond)
	p.accepted.Abort()
	require.Error(t, <-second)
	assert.Eventually(t, func() bool { return !waits() }, 30*time.Second, time.Millisecond, "it waits although its session has ended")
	release()
}

// Peers have their turns at the coders as those of their network.
func TestTurnsAreOfAPeersNetwork(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newGuests(t, Config{Quota: new(Quota)})
		c.called("alice", "10.0.0.0/24")
		require.Equal(t, zstd.Peer{Network: "10.0.0.0/24", ID: "alice"}, c.acceptor.Sessions()[0].coder)
	})
}
