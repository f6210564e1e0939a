package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/diagnostics"
	"github.com/peerlane/peerlane/internal/admin"
)

// Every user of a machine can connect to its loopback addresses, and run scripts there.
func TestThePageOfACommandNeedsATokenEverywhere(t *testing.T) {
	seen := make(map[string]bool)
	for _, ip := range []string{"127.0.0.1", "::1", "192.0.2.1", "0.0.0.0"} {
		o, url := pageOf(&net.TCPAddr{IP: net.ParseIP(ip), Port: 8080})
		require.Len(t, o.Token, 26, ip)
		require.True(t, strings.HasSuffix(url, ":8080/#token="+o.Token), url)
		require.False(t, seen[o.Token], "each has its own")
		seen[o.Token] = true
	}
}

// A crowd is a listener that always has another connection.
type crowd struct {
	accepted atomic.Int64
	done     chan struct{}
}

func (c *crowd) Accept() (net.Conn, error) {
	select {
	case <-c.done:
		return nil, net.ErrClosed
	default:
	}
	c.accepted.Add(1)
	_, there := net.Pipe()
	return there, nil
}

func (c *crowd) Close() error {
	close(c.done)
	return nil
}

func (c *crowd) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// Clients of the page must not use up the files of the process, which peers need. Those that say nothing make way for others.
func TestConnectionsToAMonitorAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, c := new(monitor), &crowd{done: make(chan struct{})}
		require.NoError(t, m.serve(c, servedBy(), nil))
		synctest.Wait()
		require.EqualValues(t, maxConns, c.accepted.Load())
		time.Sleep(headTime)
		synctest.Wait()
		require.EqualValues(t, 2*maxConns, c.accepted.Load())
		began := time.Now()
		m.close()
		require.LessOrEqual(t, time.Since(began), lastTime)
	})
}

// answering returns a process of this user that answers with serve.
func answering(t *testing.T, serve http.HandlerFunc) admin.Process {
	dir, err := os.MkdirTemp("", "mon") // a path that is short enough for a socket
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "serve-7.sock"))
	require.NoError(t, err)
	s := &http.Server{Handler: serve}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l) // http.ErrServerClosed
	}()
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		<-served
	})
	return admin.Process{Name: "serve", PID: 7, Socket: l.Addr().String()}
}

func TestAProcessThatDoesNotAnswerIsGivenUp(t *testing.T) {
	for name, serve := range map[string]http.HandlerFunc{
		"at all": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"in full": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "{")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		p := answering(t, serve)
		_, err := ask(t.Context(), p, "/snapshot.json", 50*time.Millisecond)
		require.EqualError(t, err, "serve 7 does not answer: it is stopped, or very busy", name)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = ask(ctx, p, "/snapshot.json", askTime)
		require.ErrorIs(t, err, context.Canceled, name)
	}
}

func TestTheTextOfARefusalIsBounded(t *testing.T) {
	p := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, strings.Repeat("no ", 1<<20), http.StatusTeapot)
	})
	_, err := ask(t.Context(), p, "/snapshot.json", askTime)
	require.ErrorContains(t, err, "serve 7: no no ")
	require.Less(t, len(err.Error()), 2*maxRefusal)
}

// A transfer runs on several sessions, which are asked at different moments.
func TestStatusShowsATransferOnce(t *testing.T) {
	v := busy(3, 5)
	for i := range v.Servers[0].Sessions {
		v.Servers[0].Sessions[i].Transfers = []diagnostics.TransferSnapshot{{Number: 4, Name: "photos", Bytes: 100, Verified: int64(i)}}
	}
	v.Transfers = []diagnostics.TransferSnapshot{{Number: 5, Name: "photos"}}
	require.Equal(t, 2, strings.Count(fmt.Sprint(statusLines("serve 7", v, 20)), "transfer photos"))
}

func TestWhatAProcessSaysOfItselfIsSafeForATerminal(t *testing.T) {
	v := busy(1, 5)
	v.Summary.Module = "v1\x1b[2J"
	require.NotContains(t, statusLines("serve 7", v, 20)[0], "\x1b")
}

func TestASnapshotIsSafeForATerminal(t *testing.T) {
	want := "evil\x1b[2J\u009b2J\x7f\u202e\U000e0001 caf\u00e9 \u6f22"
	text, err := json.MarshalIndent(map[string]string{"agent": want}, "", "  ")
	require.NoError(t, err)
	shown := safeJSON(string(text))
	require.Equal(t, "{\n  \"agent\": \"evil\\u001b[2J\\u009b2J\\u007f\\u202e\\udb40\\udc01 caf\u00e9 \u6f22\"\n}", string(shown))
	var got map[string]string
	require.NoError(t, json.Unmarshal(shown, &got))
	require.Equal(t, want, got["agent"])
}
