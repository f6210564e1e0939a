package main

import (
	"bytes"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// full is a disk that is full.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// Nobody can use a ticket, an address or a result that could not be written.
func TestAnOutputThatCannotBeWrittenIsAFailure(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	require.NoError(t, os.WriteFile("a", []byte("x"), 0o600))
	here := []string{"--listen", "/ip4/127.0.0.1/tcp/0"}
	const friend = "12D3KooWBYsWyhEg11Pgw2oQ5qkouQAXdRgEnqby9CZFg7y7smVi"
	for name, args := range map[string][]string{
		"send":    append([]string{"send", "a", "--keep"}, here...),
		"receive": append([]string{"receive", "in", "--allow", friend}, here...),
		"discard": {"receive", ".", "--discard"},
		"serve":   append([]string{"serve"}, here...),
		"id":      {"id", "--key", "k"},
	} {
		var stderr bytes.Buffer
		require.Equal(t, exitLocal, run(args, stdio{new(bytes.Buffer), full{}, &stderr}), name)
		require.Contains(t, stderr.String(), "no space left", name)
	}
}

func TestTheFirstErrorOfAnOutputIsKept(t *testing.T) {
	o := &output{w: full{}}
	require.NoError(t, stdio{out: o}.failed())
	_, err := o.Write([]byte("x"))
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorIs(t, stdio{out: o}.failed(), syscall.ENOSPC)
	require.NoError(t, stdio{out: new(bytes.Buffer)}.failed())
}
