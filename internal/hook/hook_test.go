package hook

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// run runs fn in a goroutine of its own, and reports what after was called with, and whether the goroutine went on.
func run(fn func()) (calls []*Failure, wentOn bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		Run(fn, func(f *Failure) { calls = append(calls, f) })
		wentOn = true
	}()
	<-done
	return calls, wentOn
}

func TestRunSaysHowAFunctionEnded(t *testing.T) {
	calls, wentOn := run(func() {})
	require.Equal(t, []*Failure{nil}, calls)
	require.True(t, wentOn)

	calls, wentOn = run(func() { panic("oh") })
	require.Len(t, calls, 1)
	require.Equal(t, "oh", calls[0].Panic)
	require.EqualError(t, calls[0], "panicked: oh")
	require.Contains(t, string(calls[0].Stack), "hook_test.go")
	require.True(t, wentOn, "a panic ends in Run")
	require.PanicsWithValue(t, "oh", calls[0].Rethrow)

	calls, wentOn = run(func() { panic(nil) })
	require.Len(t, calls, 1)
	require.IsType(t, new(runtime.PanicNilError), calls[0].Panic)
	require.True(t, wentOn)

	calls, wentOn = run(runtime.Goexit)
	require.Len(t, calls, 1)
	require.Nil(t, calls[0].Panic)
	require.EqualError(t, calls[0], "ended its goroutine")
	require.False(t, wentOn, "runtime.Goexit goes on")
	require.NotPanics(t, calls[0].Rethrow)
	require.NotPanics(t, (*Failure)(nil).Rethrow)
}

func TestDoKeepsTheCallersGoroutine(t *testing.T) {
	ran := false
	require.NoError(t, Do(func() { ran = true }))
	require.True(t, ran)
	require.Equal(t, new(Failure), Do(runtime.Goexit))
}
