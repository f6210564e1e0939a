package peerlane

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
)

// httpPaths are where net/http and ssh are tested: yamux, QUIC, and one host.
func httpPaths() []testnet.Transport {
	return []testnet.Transport{testnet.TCPTLS, testnet.QUIC, loopback}
}

// serveHTTP serves a handler on b until the test ends, and returns a client on a that dials b by Peer ID. dials counts
// the conns it opened.
func serveHTTP(t *testing.T, a, b host.Host, handler http.Handler) (client *http.Client, url string, dials *atomic.Int32) {
	t.Helper()
	l := mustListen(t, b, testTag, ListenConfig{AddrStyle: AddrPeerPort})
	srv := &http.Server{Handler: handler}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	d := &Dialer{Host: a, Tag: testTag}
	dials = new(atomic.Int32)
	transport := &http.Transport{DialContext: func(ctx context.Context, netw, addr string) (net.Conn, error) {
		dials.Add(1)
		return d.DialContext(ctx, netw, addr)
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		require.NoError(t, srv.Shutdown(testContext(t)))
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
	return &http.Client{Transport: transport, Timeout: patience}, "http://" + b.ID().String(), dials
}

func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	require.NoError(t, err)
	defer func() { require.NoError(t, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(body)
}

// Row: D20.
func TestHTTPRunsOverConnsAndKeepsThemAlive(t *testing.T) {
	onEach(t, httpPaths(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		var cancelled atomic.Int32
		client, url, dials := serveHTTP(t, a, b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Context().Err() != nil { // a read timeout taken for a dead client
				cancelled.Add(1)
			}
			host, _, err := net.SplitHostPort(r.RemoteAddr)
			_, _ = fmt.Fprint(w, host, err)
		}))
		for range 51 {
			require.Equal(t, a.ID().String()+"<nil>", get(t, client, url))
		}
		require.EqualValues(t, 1, dials.Load())
		require.Zero(t, cancelled.Load())
	})
}

func TestHTTPEchoesALargeBody(t *testing.T) {
	onEach(t, httpPaths(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		client, url, _ := serveHTTP(t, a, b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			_, _ = w.Write(body)
		}))
		sent := noise(4 << 20)
		resp, err := client.Post(url, "application/octet-stream", bytes.NewReader(sent))
		require.NoError(t, err)
		got, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.True(t, bytes.Equal(sent, got), "%d of %d bytes", len(got), len(sent))
	})
}

func TestHTTPServerSeesThatTheClientCancels(t *testing.T) {
	onEach(t, httpPaths(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		entered, left := make(chan struct{}), make(chan struct{})
		client, url, _ := serveHTTP(t, a, b, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
			close(left)
		}))
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		require.NoError(t, err)
		errs := make(chan error, 1)
		go func() {
			resp, err := client.Do(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			errs <- err
		}()
		<-entered
		cancel()
		require.ErrorIs(t, <-errs, context.Canceled)
		require.NoError(t, within(t, patience, "handler", func() error { <-left; return nil }))
	})
}

func TestHTTPServerMayRefuseABodyWithoutReadingIt(t *testing.T) {
	t.Parallel() // it waits for real
	onEach(t, httpPaths(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		client, url, _ := serveHTTP(t, a, b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "too much", http.StatusRequestEntityTooLarge)
		}))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(make([]byte, 32<<20)))
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
		require.NoError(t, resp.Body.Close())
	})
}

func TestHTTPHijacksTheConn(t *testing.T) {
	onEach(t, httpPaths(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		client, url, _ := serveHTTP(t, a, b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Errorf("hijack: %v", err)
				return
			}
			_, isHalfCloser := c.(HalfCloser)
			_, _ = fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n%v", isHalfCloser)
			_, _ = rw.Flush(), c.Close()
		}))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		require.NoError(t, err)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "raw")
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
		raw, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, "true", string(raw))
		require.NoError(t, resp.Body.Close())
	})
}
