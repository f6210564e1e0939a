package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/peerlane/peerlane"
)

const (
	execPerCPU  = 4                // commands at once; further calls wait
	execWait    = 2 * time.Second  // for the output of a command's children after it has ended or been killed
	execGrace   = 2 * time.Second  // between the two signals that end a command's group
	execLast    = 10 * time.Second // after the second one, when only the system can still hold the group
	execLook    = 10 * time.Millisecond
	maxExecText = 512 // bytes of a command's stderr that the caller is told
)

// An executor answers calls by running a command.
type executor struct {
	command []string
	env     []string
	places  chan struct{}
	ctx     context.Context // ends with close
	cancel  context.CancelFunc

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup // until their groups have ended
}

// newExecutor returns an executor of command, or an error if there is no such program. hidden is a variable that the command does not get.
func newExecutor(command []string, hidden string) (*executor, error) {
	if _, err := exec.LookPath(command[0]); err != nil {
		return nil, fmt.Errorf("--exec: %w", err)
	}
	e := &executor{command: command, env: withoutSecrets(os.Environ(), hidden), places: make(chan struct{}, execPerCPU*runtime.NumCPU())}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e, nil
}

// secretVariables begin the names of variables that may have a pre-shared key.
const secretVariables = "PEERLANE_PSK"

// withoutSecrets returns an environment without the variables of pre-shared keys, hidden among them.
func withoutSecrets(env []string, hidden string) (rest []string) {
	for _, entry := range env {
		name, _, _ := strings.Cut(entry, "=")
		if hidden != "" && strings.EqualFold(name, hidden) || strings.HasPrefix(strings.ToUpper(name), secretVariables) {
			continue
		}
		rest = append(rest, entry)
	}
	return rest
}

// handle runs the command with the request as input and returns its output; an exit code other than 0 is an error that
// quotes stderr. The caller is in the variable PEERLANE_PEER. The command runs in a process group of its own, which ends with the call, or
// when ctx ends. Its place is free for another call once the group has ended.
func (e *executor) handle(ctx context.Context, r *peerlane.Request) ([]byte, error) {
	ended, err := e.begin(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	cmd := exec.CommandContext(ctx, e.command[0], e.command[1:]...)
	cmd.Env = append(e.env[:len(e.env):len(e.env)], "PEERLANE_PEER="+r.Peer.String())
	cmd.Stdin = bytes.NewReader(r.Value)
	cmd.WaitDelay = execWait
	ownGroup(cmd)
	out, text := &boundedBuffer{limit: maxBody}, &boundedBuffer{limit: maxExecText, drop: true}
	cmd.Stdout, cmd.Stderr = out, text
	if err = cmd.Start(); err != nil {
		ended()
	} else {
		err = cmd.Wait()
		go func() { // ends with the group, or when close gives it up
			defer ended()
			e.end(cmd.Process.Pid)
		}()
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", e.command[0], err, strings.TrimSpace(text.String()))
	}
	return out.Bytes(), nil
}

// begin waits for a place, which ended gives back.
func (e *executor) begin(ctx context.Context) (ended func(), err error) {
	e.mu.Lock()
	closed := e.closed
	if !closed {
		e.calls.Add(1)
	}
	e.mu.Unlock()
	if closed {
		return nil, context.Canceled
	}
	select {
	case e.places <- struct{}{}:
		return func() { <-e.places; e.calls.Done() }, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-e.ctx.Done():
		err = e.ctx.Err()
	}
	e.calls.Done()
	return nil, err
}

// end ends a process group whose first process has ended: it asks, and after execGrace, or once close was called, it kills. It returns when
// the group is empty, or has outlived that by execLast, as processes do that wait for a disk, or for a parent that does not look.
func (e *executor) end(group int) {
	if !terminateGroup(group) {
		return
	}
	tick := time.NewTicker(execLook)
	defer tick.Stop()
	kill, last := time.After(execGrace), (<-chan time.Time)(nil)
	closing := e.ctx.Done()
	for groupExists(group) {
		select {
		case <-tick.C:
			continue
		case <-closing:
		case <-kill:
		case <-last:
			return
		}
		killGroup(group)
		kill, closing, last = nil, nil, time.After(execLast)
	}
}

// close ends all commands, and waits for them.
func (e *executor) close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	e.calls.Wait()
}

var errOutputTooLong = errors.New("the command's output is too long for one response")

// A boundedBuffer holds what is written up to a limit. What comes beyond is an error, or, with drop, is dropped.
type boundedBuffer struct {
	bytes.Buffer
	limit int
	drop  bool
}

// Write appends p.
func (b *boundedBuffer) Write(p []byte) (int, error) {
	room := b.limit - b.Len()
	if len(p) <= room {
		return b.Buffer.Write(p)
	}
	if !b.drop {
		return 0, errOutputTooLong
	}
	b.Buffer.Write(p[:room])
	return len(p), nil
}
