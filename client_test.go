package peerlane

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/testnet"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/session"
)

const callTag protocol.ID = "/test/1.0.0"

// cheapPSK keeps Argon2id out of the time of tests.
var cheapPSK = &PSKOptions{Params: psk.Params{Time: 1, MemoryKiB: 64, Threads: 1}}

// newServer returns a server on h that is stopped when the test ends.
func newServer(t *testing.T, h host.Host, cfg *ServerConfig) *Server {
	t.Helper()
	s, err := NewServer(h, cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // cut off what a failed test left
		_ = s.Shutdown(ctx)
	})
	return s
}

// newClient returns a client on h that is closed when the test ends.
func newClient(t *testing.T, h host.Host, cfg *ClientConfig) *Client {
	t.Helper()
	c, err := NewClient(h, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func echoHandler(request []byte) ([]byte, error) { return request, nil }

// Row: P18, P20, D1, D28, C1
func TestManyCallsUnderTheDefaultResourceManagerShareOneStream(t *testing.T) {
	for _, tr := range []testnet.Transport{testnet.TCPTLS, testnet.QUIC} {
		t.Run(string(tr), func(t *testing.T) {
			a, b := testnet.Pair(t, tr)
			s := newServer(t, b, nil)
			require.NoError(t, s.Start(callTag, echoHandler))
			c := newClient(t, a, nil)
			for i := range 2000 {
				got, err := c.Send(t.Context(), b.ID(), callTag, []byte{byte(i)})
				require.NoError(t, err, "call %d", i)
				require.Equal(t, []byte{byte(i)}, got)
			}
			var wg sync.WaitGroup
			for i := range 140 {
				wg.Go(func() {
					body := bytes.Repeat([]byte{byte(i)}, 1000)
					got, err := c.Send(t.Context(), b.ID(), callTag, body)
					if err != nil || !bytes.Equal(got, body) {
						t.Errorf("call %d: %v", i, err)
					}
				})
			}
			wg.Wait()
			require.Len(t, s.GetConnectionsInfo(), 1)
			require.NoError(t, c.Close())
		})
	}
}

// Row: P13, D5
func TestAHandlersErrorReachesTheCallerTyped(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, nil)
	require.NoError(t, s.Start(callTag, func([]byte) ([]byte, error) { return nil, errors.New("denied") }))
	_, err := newClient(t, a, nil).Send(t.Context(), b.ID(), callTag, nil)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "denied", e.Text)
	require.Equal(t, session.Delivered, e.Outcome)
	require.True(t, e.Remote)
}

// Row: N1, N2
func TestCallsAndMessagesRunUnderAPreSharedKey(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s, c := newServer(t, b, nil), newClient(t, a, nil)
	require.ErrorIs(t, s.Listen(callTag), ErrModernPSKRequired)
	_, err := c.Connect(t.Context(), b.ID(), callTag)
	require.ErrorIs(t, err, ErrModernPSKRequired)
	require.NoError(t, UseModernPSKServer(s, []byte("correct horse"), cheapPSK))
	require.NoError(t, UseModernPSKClient(c, []byte("correct horse"), cheapPSK))
	require.NoError(t, s.Start(callTag, echoHandler))
	s.SetLink("hello", func(m *session.Message) { _ = m.Reply(append([]byte("hello "), m.Value...)) })
	got, err := c.Send(t.Context(), b.ID(), callTag, []byte("x"))
	require.NoError(t, err)
	require.Equal(t, "x", string(got))
	own, err := c.Connect(t.Context(), b.ID(), callTag)
	require.NoError(t, err)
	reply, err := own.SendWait(t.Context(), "hello", []byte("bob"))
	require.NoError(t, err)
	require.Equal(t, "hello bob", string(reply.Value))
	wrong := newClient(t, a, nil)
	require.NoError(t, UseModernPSKClient(wrong, []byte("wrong horse"), cheapPSK))
	_, err = wrong.Send(t.Context(), b.ID(), callTag, nil)
	require.ErrorIs(t, err, ErrPSKMismatch)
	_, err = newClient(t, a, nil).Send(t.Context(), b.ID(), callTag, nil)
	require.ErrorIs(t, err, ErrPSKRequired)
}
