//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/peerlane/peerlane"
)

// script returns an executor of a shell script, with one place.
func script(t *testing.T, text string) *executor {
	t.Helper()
	e, err := newExecutor([]string{"sh", "-c", text}, "")
	require.NoError(t, err)
	e.places = make(chan struct{}, 1)
	t.Cleanup(e.close)
	return e
}

// isAlive reports whether a process runs. One that has ended, and that nobody has collected, does not.
func isAlive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil && strings.Contains(string(stat), ") Z ") {
		return false
	}
	return unix.Kill(pid, 0) == nil
}

func pidIn(t *testing.T, out []byte) int {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	require.NoError(t, err)
	return pid
}

func await(t *testing.T, is func() bool) {
	t.Helper()
	require.Eventually(t, is, 30*time.Second, 10*time.Millisecond)
}

// each runs a test with each of the scripts, side by side: the system takes its time to collect what has ended.
func each(t *testing.T, texts []string, test func(t *testing.T, text string)) {
	t.Helper()
	t.Parallel()
	for i, text := range texts {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			test(t, text)
		})
	}
}

const (
	leaves   = "sleep 300 >/dev/null 2>&1 & echo $!"
	stubborn = `(trap "" TERM; while :; do sleep 1; done) >/dev/null 2>&1 & echo $!`
)

func TestWhatACommandLeavesBehindEndsWithItsCall(t *testing.T) {
	each(t, []string{leaves, stubborn}, func(t *testing.T, text string) {
		e := script(t, text)
		out, err := e.handle(t.Context(), &peerlane.Request{})
		require.NoError(t, err)
		pid := pidIn(t, out)
		again, err := e.handle(t.Context(), &peerlane.Request{})
		require.NoError(t, err)
		require.False(t, isAlive(pid), "its place was given away before it had ended")
		await(t, func() bool { return !isAlive(pidIn(t, again)) && len(e.places) == 0 })
	})
}

func TestACallThatIsGivenUpEndsAllOfItsGroup(t *testing.T) {
	deaf := stubborn + ` > $0; trap "" TERM; while :; do sleep 1; done`
	each(t, []string{"sleep 300 & echo $! > $0; sleep 300", deaf}, func(t *testing.T, text string) {
		file := t.TempDir() + "/pid"
		e := script(t, strings.ReplaceAll(text, "$0", file))
		ctx, cancel := context.WithCancel(t.Context())
		var pid int
		go func() { // ends with the loop
			defer cancel()
			for ctx.Err() == nil {
				b, _ := os.ReadFile(file)
				if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
					pid = n
					return
				}
				time.Sleep(execLook)
			}
		}()
		_, err := e.handle(ctx, &peerlane.Request{})
		require.ErrorIs(t, err, context.Canceled)
		require.NotZero(t, pid)
		await(t, func() bool { return !isAlive(pid) && len(e.places) == 0 })
	})
}

func TestCloseEndsCommandsAtOnceAndWaits(t *testing.T) {
	t.Parallel()
	e := script(t, stubborn)
	out, err := e.handle(t.Context(), &peerlane.Request{})
	require.NoError(t, err)
	e.close()
	require.False(t, isAlive(pidIn(t, out)))
	require.Empty(t, e.places)
	_, err = e.handle(t.Context(), &peerlane.Request{})
	require.ErrorIs(t, err, context.Canceled)

	e = script(t, "sleep 300")
	ended := make(chan error, 1)
	go func() { // ends with close
		_, err := e.handle(t.Context(), &peerlane.Request{})
		ended <- err
	}()
	await(t, func() bool { return len(e.places) == 1 })
	e.close()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestACommandThatCannotStartGivesItsPlaceBack(t *testing.T) {
	e := script(t, "true")
	e.command = []string{"/"}
	_, err := e.handle(t.Context(), &peerlane.Request{})
	require.Error(t, err)
	require.Empty(t, e.places)
}
