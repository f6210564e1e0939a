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
	"time"

	"github.com/peerlane/peerlane"
)

const (
	execPerCPU  = 4               // commands at once; further calls wait
	execWait    = 2 * time.Second // for the output of a command's children after it has ended or been killed
	maxExecText = 512             // bytes of a command's stderr that the caller is told
)

// An executor answers calls by running a command.
type executor struct {
	command []string
	places  chan struct{}
}

// newExecutor returns a handler that runs command, or an error when there is no such program.
func newExecutor(command []string) (peerlane.Handler, error) {
	if _, err := exec.LookPath(command[0]); err != nil {
		return nil, fmt.Errorf("--exec: %w", err)
	}
	e := &executor{command: command, places: make(chan struct{}, execPerCPU*runtime.NumCPU())}
	return e.handle, nil
}

// handle runs the command with the request as input and returns its output; an exit code other than 0 is an error that
// quotes stderr. The caller is in the variable PEERLANE_PEER. The command is killed when ctx ends.
func (e *executor) handle(ctx context.Context, r *peerlane.Request) ([]byte, error) {
	select {
	case e.places <- struct{}{}:
		defer func() { <-e.places }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	cmd := exec.CommandContext(ctx, e.command[0], e.command[1:]...)
	cmd.Env = append(os.Environ(), "PEERLANE_PEER="+r.Peer.String())
	cmd.Stdin = bytes.NewReader(r.Value)
	cmd.WaitDelay = execWait
	out, text := &boundedBuffer{limit: maxBody}, &boundedBuffer{limit: maxExecText, drop: true}
	cmd.Stdout, cmd.Stderr = out, text
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", e.command[0], err, strings.TrimSpace(text.String()))
	}
	return out.Bytes(), nil
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
