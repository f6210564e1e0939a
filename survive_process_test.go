//go:build unix

package peerlane

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// The environment of a child: its private key, where it listens, and its ResumeWindow.
const (
	childKey    = "PEERLANE_SURVIVE_KEY"
	childListen = "PEERLANE_SURVIVE_LISTEN"
	childWindow = "PEERLANE_SURVIVE_WINDOW"
)

// childBeat is the heartbeat of both sides in the tests with a child.
const childBeat = 200 * time.Millisecond

// A child is a server in a process of its own, which serves callTag until it is killed: it answers with the request, after
// having said "run <request>", and holds requests that begin with "hold" until the next line of its input.
type child struct {
	t    *testing.T
	pid  peer.ID
	at   ma.Multiaddr
	cmd  *exec.Cmd
	in   io.WriteCloser
	said chan string // the lines of its output; closed at the end of that
}

// startChild starts this test's binary as a child with a key, at an address whose port may be 0.
func startChild(t *testing.T, key crypto.PrivKey, at string, window time.Duration) *child {
	t.Helper()
	raw, err := crypto.MarshalPrivateKey(key)
	require.NoError(t, err)
	c := &child{t: t, said: make(chan string, 1024), cmd: exec.Command(os.Args[0], "-test.run=^TestSurviveIsServedByAChild$")}
	c.pid, err = peer.IDFromPrivateKey(key)
	require.NoError(t, err)
	c.cmd.Env = append(os.Environ(), childKey+"="+base64.StdEncoding.EncodeToString(raw), childListen+"="+at,
		childWindow+"="+window.String())
	c.cmd.Stderr = os.Stderr
	c.in, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.cmd.Start())
	go func() {
		defer close(c.said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.said <- lines.Text()
		}
	}()
	t.Cleanup(c.kill)
	c.at, err = ma.NewMultiaddr(strings.TrimPrefix(c.next("listen"), "listen "))
	require.NoError(t, err)
	return c
}

// next returns the next line that the child says, which begins with what.
func (c *child) next(what string) string {
	c.t.Helper()
	line := await(c.t, c.said, "the child's "+what)
	require.True(c.t, strings.HasPrefix(line, what), "the child says %q, not %q", line, what)
	return line
}

// signal stops and continues the child.
func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	require.NoError(c.t, c.cmd.Process.Signal(s))
}

// kill ends the child without a last word, and waits until it is gone.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may be gone already
	for range c.said {
	}
	_ = c.cmd.Wait() // says that it was killed
}

// TestSurviveIsServedByAChild is what a child runs. Without a key it is no child, and there is nothing to test.
func TestSurviveIsServedByAChild(t *testing.T) {
	encoded := os.Getenv(childKey)
	if encoded == "" {
		return
	}
	raw, err := base64.StdEncoding.DecodeString(encoded)
	require.NoError(t, err)
	key, err := crypto.UnmarshalPrivateKey(raw)
	require.NoError(t, err)
	window, err := time.ParseDuration(os.Getenv(childWindow))
	require.NoError(t, err)
	at := libp2p.ListenAddrStrings(os.Getenv(childListen))
	h := testnet.Host(t, testnet.TCPTLS, libp2p.Identity(key), libp2p.NoListenAddrs, at)
	release := make(chan struct{})
	s := newServer(t, h, &ServerConfig{Heartbeat: childBeat, ResumeWindow: window})
	require.NoError(t, s.Handle(callTag, func(ctx context.Context, req *Request) ([]byte, error) {
		fmt.Printf("run %s\n", req.Value)
		if strings.HasPrefix(string(req.Value), "hold") {
			select {
			case <-release:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return req.Value, nil
	}))
	fmt.Printf("listen %s\n", h.Network().ListenAddresses()[0])
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		select {
		case release <- struct{}{}:
		case <-time.After(patience):
			return
		}
	}
}

// childPair returns a child and a client that knows it.
func childPair(t *testing.T, window time.Duration) (*child, *Client, *stepLog, crypto.PrivKey) {
	t.Helper()
	key, _ := newIdentity(t)
	serving := startChild(t, key, "/ip4/127.0.0.1/tcp/0", window)
	a := testHost(t)
	peerlanetest.Teach(a, serving.pid, serving.at)
	log := newStepLog()
	c := newClient(t, a, &ClientConfig{Heartbeat: childBeat, ResumeWindow: window, OnState: log.note, RetryInterval: never})
	return serving, c, log, key
}

// sendTo calls a child in a goroutine.
func sendTo(t *testing.T, c *Client, to *child, request string) <-chan error {
	done := make(chan error, 1)
	go func() {
		got, err := c.Send(t.Context(), to.pid, callTag, []byte(request))
		if err == nil && string(got) != request {
			err = fmt.Errorf("answer %q to %q", got, request)
		}
		done <- err
	}()
	return done
}

// Row: S5, S6: what a killed process was doing is unknown, and is said to be; the next call finds its successor at once.
func TestSurviveNotTheDeathOfThePeersProcessButWithoutAHang(t *testing.T) {
	t.Parallel()
	serving, c, log, key := childPair(t, time.Minute)
	done := sendTo(t, c, serving, "hold")
	serving.next("run hold")
	serving.kill()
	log.await(t, session.StateDetached, 1)
	again := startChild(t, key, serving.at.String(), time.Minute)
	back := time.Now()
	err := await(t, done, "the pending call")
	require.ErrorIs(t, err, session.ErrSessionLost)
	requireTyped(t, err, session.Unknown)
	require.Less(t, time.Since(back), 6*time.Second, "one wait of the session's backoff")
	ended := time.Since(back)

	began := time.Now()
	require.NoError(t, await(t, sendTo(t, c, again, "next"), "the next call"))
	require.Less(t, time.Since(began), 3*time.Second)
	again.next("run next")
	require.NoError(t, await(t, sendTo(t, c, again, "third"), "the third call"))
	again.next("run third")
	t.Logf("the pending call ended %v after the restart, the next took %v", ended, time.Since(began))
}

// Row: S5: a call that comes while the peer's process is being restarted is answered by the new one, once.
func TestSurviveARestartForACallThatComesMeanwhile(t *testing.T) {
	t.Parallel()
	serving, c, log, key := childPair(t, time.Minute)
	require.NoError(t, await(t, sendTo(t, c, serving, "first"), "the first call"))
	serving.kill()
	log.await(t, session.StateDetached, 1)
	done := sendTo(t, c, serving, "meanwhile")
	again := startChild(t, key, serving.at.String(), time.Minute)
	back := time.Now()
	require.NoError(t, await(t, done, "the call"))
	again.next("run meanwhile")
	t.Logf("answered %v after the restart", time.Since(back))
}

// Row: S6: a process that was stopped for a while goes on as if nothing had happened.
func TestSurviveAPauseOfThePeersProcess(t *testing.T) {
	t.Parallel()
	serving, c, log, _ := childPair(t, time.Minute)
	held := sendTo(t, c, serving, "hold")
	serving.next("run hold")
	serving.signal(syscall.SIGSTOP)
	stopped := time.Now()
	var meanwhile []<-chan error
	s := onlySession(t, c)
	for i := range 10 {
		meanwhile = append(meanwhile, func() <-chan error {
			done := make(chan error, 1)
			go func() {
				_, err := s.Call(t.Context(), "", fmt.Appendf(nil, "call %d", i))
				done <- err
			}()
			return done
		}())
	}
	lost := log.await(t, session.StateDetached, 1)
	require.Less(t, lost.At.Sub(stopped), 2*childBeat+2*time.Second)
	pass(1500*time.Millisecond - time.Since(stopped))
	serving.signal(syscall.SIGCONT)
	back := time.Now()
	ran := map[string]int{}
	for i, call := range meanwhile {
		require.NoError(t, await(t, call, "a call"), "call %d", i)
		ran[serving.next("run call")]++
	}
	require.Len(t, ran, len(meanwhile))
	_, err := io.WriteString(serving.in, "\n")
	require.NoError(t, err)
	require.NoError(t, await(t, held, "the call that was being handled"))
	require.Equal(t, s, onlySession(t, c))
	serving.kill()
	require.Empty(t, serving.said, "a handler ran twice")
	t.Logf("detached after %v, went on %v after the pause: %+v", lost.At.Sub(stopped), time.Since(back), s.Snapshot().Resumes)
}

// Row: S5 (ResumeWindow): a peer that stays away for longer than the window is given up in time.
func TestSurviveAPauseOnlyForTheResumeWindow(t *testing.T) {
	const window = 2 * time.Second
	t.Parallel()
	serving, c, log, _ := childPair(t, window)
	held := sendTo(t, c, serving, "hold")
	serving.next("run hold")
	serving.signal(syscall.SIGSTOP)
	stopped := time.Now()
	err := await(t, held, "the call")
	took := time.Since(stopped)
	require.ErrorIs(t, err, session.ErrSessionLost)
	requireTyped(t, err, session.Unknown)
	require.InDelta(t, (2*childBeat + window).Seconds(), took.Seconds(), 2)
	log.await(t, session.StateEnded, 1)
	require.Equal(t, []session.State{session.StateConnected, session.StateDetached, session.StateEnded}, log.states())
	serving.signal(syscall.SIGCONT)
	back := time.Now()
	require.NoError(t, await(t, sendTo(t, c, serving, "next"), "the next call"))
	serving.next("run next")
	require.Less(t, time.Since(back), 3*time.Second)
	t.Logf("given up after %v; the next call took %v", took, time.Since(back))
}
