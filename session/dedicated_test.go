package session

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// tcpCarriers opens carriers over loopback TCP to an Acceptor.
func tcpCarriers(t *testing.T, a *Acceptor) Opener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = a.Serve(conn, "alice") }()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return func(ctx context.Context, _ Want) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", l.Addr().String())
	}
}

// Row: N2, N9, N16
func TestDedicatedStreamsPassNettestSealedAndNot(t *testing.T) {
	for name, sealed := range map[string]bool{"sealed": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				const patience = 2 * time.Second // of Close, where nettest reads nothing
				here := Config{Local: "alice", CloseTimeout: patience}
				there := Config{Local: "bob", Mux: NewMux(), CloseTimeout: patience}
				if sealed {
					here.Keys, there.Keys = keyring(t, 0), keyring(t, 0)
				}
				got, release := make(chan *Stream, 1), make(chan struct{})
				there.Mux.SetStream("x", func(st *Stream) {
					got <- st
					<-release
				})
				a, err := NewAcceptor(&AcceptorConfig{Config: there})
				require.NoError(t, err)
				open := tcpCarriers(t, a)
				conn, err := open(t.Context(), Want{})
				require.NoError(t, err)
				s, err := Dial(t.Context(), conn, "bob", open, &here)
				require.NoError(t, err)
				st, err := s.OpenStream(t.Context(), "x", &StreamOptions{Dedicated: true})
				require.NoError(t, err)
				return st, <-got, func() {
					close(release)
					_ = s.Close()
					<-s.readerDone
				}, nil
			})
		})
	}
}

func TestADedicatedStreamIsRefusedLikeASharedOne(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{MaxStreams: 2}})
		release := make(chan struct{})
		p.mux.SetStream("x", func(*Stream) { <-release })
		p.mux.SetStream("panics", func(*Stream) { panic("boom") })
		dedicated := &StreamOptions{Dedicated: true}
		_, err := p.accepted.OpenStream(t.Context(), "x", dedicated)
		require.ErrorIs(t, err, ErrUnsupported)
		_, err = p.dialer.OpenStream(t.Context(), "nobody", dedicated)
		require.ErrorIs(t, err, ErrNotFound)
		require.Equal(t, "nobody", asError(t, err, NotSent).Link)
		st, err := p.dialer.OpenStream(t.Context(), "panics", dedicated)
		require.NoError(t, err)
		_, err = st.Read(make([]byte, 1))
		require.Error(t, err)
		require.NoError(t, st.Close())
		var open []*Stream
		for range 2 {
			st, err := p.dialer.OpenStream(t.Context(), "x", dedicated)
			require.NoError(t, err)
			open = append(open, st)
		}
		require.Equal(t, 2, p.dialer.Snapshot().Streams)
		_, err = p.dialer.OpenStream(t.Context(), "x", dedicated)
		require.ErrorIs(t, err, ErrUnavailable)
		close(release)
		for _, st := range open {
			require.NoError(t, st.Close())
			require.NoError(t, st.Close())
			require.NoError(t, st.Reset(1))
		}
		wantZero(t, p.dialer)
		wantZero(t, p.accepted)
	})
}

// A third party can neither name nor join another's session.
func TestASessionIsKnownOnlyToItsOwnPeer(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetStream("x", func(*Stream) {})
		here, there := net.Pipe()
		go func() { _ = p.acceptor.Serve(there, "mallory") }()
		answer := sayHello(t, here, &frame.Hello{Role: frame.RoleStream, SessionID: p.dialer.ID(), Name: "x"})
		require.Equal(t, frame.KindRefuse, answer.Kind)
		require.Equal(t, codes.NotFound, answer.Failure.Code)
		require.Equal(t, "no such session", answer.Failure.Text)
	})
}

func TestTheEndOfTheSessionInTheMiddleOfADedicatedHelloLeavesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		here, there := net.Pipe()
		go func() {
			readHello(t, there)
			_ = frame.WriteHello(there, frame.AppendHello(nil, &frame.Hello{Kind: frame.KindAck, Version: 1, Limits: &generous,
				SessionID: newSessionID()}))
			_, _ = io.Copy(io.Discard, there)
		}()
		far := make(chan net.Conn, 1)
		open := func(context.Context, Want) (net.Conn, error) {
			a, b := net.Pipe()
			far <- b
			return a, nil
		}
		s, err := Dial(t.Context(), here, "bob", open, &Config{Heartbeat: -1, CloseTimeout: time.Second})
		require.NoError(t, err)
		result := make(chan error, 1)
		go func() {
			_, err := s.OpenStream(t.Context(), "x", &StreamOptions{Dedicated: true})
			result <- err
		}()
		conn := <-far
		readHello(t, conn)
		require.NoError(t, s.Close())
		require.NoError(t, frame.WriteHello(conn, frame.AppendHello(nil, &frame.Hello{Kind: frame.KindAck, Version: 1})))
		err = <-result
		require.ErrorIs(t, err, ErrClosed)
		asError(t, err, Unknown)
		_, err = conn.Read(make([]byte, 1))
		require.Error(t, err, "the carrier is dropped")
		wantZero(t, s)

		_, err = s.OpenStream(t.Context(), "x", &StreamOptions{Dedicated: true})
		require.ErrorIs(t, err, ErrClosed)
	})
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.dialer.carriers.open = func(context.Context, Want) (net.Conn, error) { return nil, os.ErrNotExist }
		_, err := p.dialer.OpenStream(t.Context(), "x", &StreamOptions{Dedicated: true})
		require.ErrorIs(t, err, os.ErrNotExist)
		asError(t, err, NotSent)
		frozen, far := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, far) }()
		p.dialer.carriers.open = func(context.Context, Want) (net.Conn, error) { return frozen, nil }
		_, err = p.dialer.OpenStream(within(t, time.Second), "x", &StreamOptions{Dedicated: true})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		wantZero(t, p.dialer)
		synctest.Wait()
	})
}

func TestHalfCloseOfAPipeIsUnsupported(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetStream("x", func(st *Stream) { _, _ = io.Copy(st, st) })
		st, err := p.dialer.OpenStream(t.Context(), "x", &StreamOptions{Dedicated: true})
		require.NoError(t, err)
		require.ErrorIs(t, st.CloseWrite(), errors.ErrUnsupported)
		require.ErrorIs(t, st.CloseRead(), errors.ErrUnsupported)
		require.Equal(t, "pipe", st.LocalAddr().String())
		require.Equal(t, "pipe", st.RemoteAddr().String())
		require.NoError(t, st.Close())
	})
}
