//go:build unix

package main

import (
	"context"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stoppable starts peerlane serve as a process, and returns that and its address.
func stoppable(t *testing.T, w *world, flags ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(w.bin, append([]string{"serve", "--listen", "/ip4/127.0.0.1/tcp/0"}, flags...)...)
	out := new(lockedBuffer)
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it is stopped
		_ = cmd.Wait()
	})
	addr := waitFor(t, out, "(?m)^address  (.*)\n(?s:.*)^ready$")
	return cmd, addr
}

// When the time is over, a peer that does not answer is not waited for any longer, beyond a short goodbye.
func TestATimeLimitIsKeptWhenThePeerStops(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const limit, late = 2 * time.Second, 4 * time.Second
	t.Run("call", func(t *testing.T) {
		t.Parallel() // it waits, as the other one does
		_, addr := stoppable(t, w, "--exec", "sh", "-c", "kill -STOP $PPID")
		hello := "hello"
		call := callCmd{peerFlags: peerFlags{Peer: addr, Tag: defaultTag, Timeout: limit}, Data: &hello}
		out, began := new(lockedBuffer), time.Now()
		err := call.Run(t.Context(), stdio{strings.NewReader(""), out, out})
		require.Less(t, time.Since(began), limit+late)
		code, hint := explain(err)
		require.Equal(t, exitTimeout, code, "%v", err)
		require.Equal(t, hintUnknown, hint)
	})
	t.Run("ping", func(t *testing.T) {
		t.Parallel()
		cmd, addr := stoppable(t, w)
		ping := pingCmd{peerFlags: peerFlags{Peer: addr, Tag: defaultTag, Timeout: limit}, Count: 1000, Interval: 100 * time.Millisecond}
		out, ended := new(lockedBuffer), make(chan error, 1)
		go func() { ended <- ping.Run(context.Background(), stdio{strings.NewReader(""), out, out}) }() // ends when the peer is stopped
		waitFor(t, out, "(?m)^(1): ")
		require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
		began := time.Now()
		err := <-ended
		require.Less(t, time.Since(began), limit+late)
		code, hint := explain(err)
		require.Equal(t, exitTimeout, code, "%v", err)
		require.Equal(t, hintPing, hint)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}
