package peerlane

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/node"
)

// Row: N4: two processes of one machine have the same API over a socket, conns and calls.
func TestEverythingRunsOverASocketOfTheMachine(t *testing.T) {
	dir, err := os.MkdirTemp("", "lane") // short enough for a socket, as t.TempDir may not be
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	open := func(opts node.Options) *node.Node {
		n, err := node.New(t.Context(), &opts)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, n.Close()) })
		return n
	}
	key := filepath.Join(dir, "key")
	a := open(node.Options{NoListen: true})
	serve := func() (*node.Node, *Server) {
		b := open(node.Options{KeyFile: key, ListenAddrs: []string{"/unix" + filepath.Join(dir, "app.sock")}})
		s := newServer(t, b.Host(), nil)
		require.NoError(t, s.Start(callTag, echoHandler))
		return b, s
	}
	b, s := serve()
	a.Remember(b.Info())

	l := mustListen(t, b.Host(), testTag, ListenConfig{})
	near, far := connPair(t, a.Host(), l)
	require.Equal(t, Path{Transport: "unix"}, near.Path())
	require.Equal(t, "direct, unix", far.Path().String())
	_, err = near.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, near.CloseWrite())
	got, err := io.ReadAll(far)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))

	c := newClient(t, a.Host(), patientClient())
	answer, err := c.Send(t.Context(), b.ID(), callTag, []byte("over a socket"))
	require.NoError(t, err)
	require.Equal(t, "over a socket", string(answer))

	require.NoError(t, s.Shutdown(context.Background()))
	require.NoError(t, b.Close())
	serve() // again, at the same place
	answer, err = c.Send(t.Context(), b.ID(), callTag, []byte("and again"))
	require.NoError(t, err)
	require.Equal(t, "and again", string(answer))
}
