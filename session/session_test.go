package session

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/peerlane/peerlane/internal/frame"
)

func echo(m *Message) ([]byte, error) { return m.Value, nil }

func TestCallReturnsWhatTheHandlerReturned(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetCall(echo)
		for _, n := range []int{0, 1, 100, fragment - 1, fragment, fragment + 1, chunkSize, chunkSize + 1, 1 << 20} {
			body := make([]byte, n)
			_, _ = rand.Read(body)
			reply, err := p.dialer.Call(t.Context(), "", body)
			require.NoError(t, err, "size %d", n)
			require.True(t, bytes.Equal(body, reply), "size %d", n)
		}
		zeros := make([]byte, 4<<20)
		before := p.dialer.Snapshot().BytesOut
		reply, err := p.dialer.Call(t.Context(), "", zeros)
		require.NoError(t, err)
		require.Equal(t, zeros, reply)
		require.Less(t, p.dialer.Snapshot().BytesOut-before, uint64(64<<10))
	})
}

func TestManyCallsAtOnceAreAllAnswered(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{MaxInFlight: 7}})
		p.mux.SetCall(echo)
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				body := bytes.Repeat([]byte{byte(i)}, i*50)
				reply, err := p.dialer.Call(t.Context(), "", body)
				if err != nil || !bytes.Equal(body, reply) {
					t.Errorf("call %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		require.Zero(t, p.dialer.Snapshot().InFlightOut)
		synctest.Wait()
		require.Zero(t, p.accepted.Snapshot().InFlightIn)
		require.Zero(t, p.accepted.cfg.Quota.Snapshot().Bytes)
		require.Zero(t, p.accepted.cfg.Quota.Snapshot().Calls)
	})
}

// Claim: session.ErrOneWay
func TestMessagesAreHandledInOrderOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{MessageWindow: 1000}})
		var got []byte
		p.mux.SetLink("log", func(m *Message) {
			got = append(got, m.Value[0])
			require.ErrorIs(t, m.Reply(nil), ErrOneWay)
			time.Sleep(time.Millisecond)
		})
		for i := range 200 {
			require.NoError(t, p.dialer.Send(t.Context(), "log", []byte{byte(i)}))
		}
		require.NoError(t, p.dialer.Flush(t.Context()))
		require.Len(t, got, 200)
		for i, b := range got {
			require.Equal(t, byte(i), b)
		}
		require.NoError(t, p.dialer.Send(t.Context(), "nobody", []byte("x")))
		err := p.dialer.Flush(t.Context())
		require.ErrorIs(t, err, ErrNotFound)
		var e *Error
		require.True(t, errors.As(err, &e))
		require.Equal(t, Rejected, e.Outcome)
		require.Equal(t, "nobody", e.Link)
	})
}

// Claim: session.Snapshot.Streams, session.StreamOptions.Dedicated
func TestStreamsCarryBytesBothWays(t *testing.T) {
	for _, dedicated := range []bool{false, true} {
		inBubble(t, func(t *testing.T) {
			p := newPair(t, Config{}, AcceptorConfig{})
			p.mux.SetStream("echo", func(st *Stream) { _, _ = io.Copy(st, st) })
			st, err := p.dialer.OpenStream(t.Context(), "echo", &StreamOptions{Dedicated: dedicated})
			require.NoError(t, err)
			body := make([]byte, 3<<20)
			_, _ = rand.Read(body)
			if !dedicated {
				go func() {
					_, _ = st.Write(body)
					_ = st.CloseWrite()
				}()
				got, err := io.ReadAll(st)
				require.NoError(t, err)
				require.True(t, bytes.Equal(body, got))
			}
			require.NoError(t, st.Close())
			_, err = p.dialer.OpenStream(t.Context(), "nobody", &StreamOptions{Dedicated: dedicated})
			require.ErrorIs(t, err, ErrNotFound)
			synctest.Wait()
			require.Zero(t, p.dialer.Snapshot().Streams)
			require.Zero(t, p.accepted.Snapshot().Streams)
		})
	}
}

func TestSharedStreamsPassNettest(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		p := newPair(t, Config{}, AcceptorConfig{})
		got := make(chan *Stream, 1)
		release := make(chan struct{})
		p.mux.SetStream("x", func(st *Stream) {
			got <- st
			<-release
		})
		st, err := p.dialer.OpenStream(t.Context(), "x", nil)
		if err != nil {
			return nil, nil, nil, err
		}
		return st, <-got, func() {
			close(release)
			_ = p.dialer.Close()
		}, nil
	})
}

// Claim: session.Config.HeartbeatTimeout
func TestASilentPeerIsFound(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{Heartbeat: time.Second, HeartbeatTimeout: 3 * time.Second}, AcceptorConfig{})
		time.Sleep(time.Minute)
		require.NoError(t, p.dialer.Err())
		frozen, far := net.Pipe()
		go func() {
			_, _ = frame.ReadHello(far)
			_ = frame.WriteHello(far, frame.AppendHello(nil, &frame.Hello{Kind: frame.KindAck, Version: 1,
				Limits: p.accepted.cfg.limits(), SessionID: newSessionID()}))
			_, _ = io.Copy(io.Discard, far)
		}()
		s, err := Dial(t.Context(), frozen, "bob", nil, &Config{Heartbeat: time.Second, HeartbeatTimeout: 3 * time.Second})
		require.NoError(t, err)
		began := time.Now()
		_, err = s.Call(t.Context(), "", nil)
		require.ErrorIs(t, err, ErrSessionLost)
		require.WithinDuration(t, began.Add(3*time.Second), time.Now(), time.Second)
		_ = far.Close()
	})
}

func TestShutdownLetsCallsEnd(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetCall(func(m *Message) ([]byte, error) {
			time.Sleep(5 * time.Second)
			return []byte("done"), nil
		})
		answered := make(chan error, 1)
		go func() {
			_, err := p.dialer.Call(t.Context(), "", nil)
			answered <- err
		}()
		synctest.Wait()
		began := time.Now()
		require.NoError(t, p.acceptor.Shutdown(t.Context()))
		require.NoError(t, <-answered)
		require.Equal(t, 5*time.Second, time.Since(began))
		_, err := p.dialer.Call(t.Context(), "", nil)
		require.ErrorIs(t, err, ErrGoingAway)
	})
}
