package peerlanetest_test

import (
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
)

// Claim: peerlanetest.LinkOptions.Delay, peerlanetest.LinkOptions.Rate, peerlanetest.LinkOptions.Buffer
func TestALinkHasItsDelayItsRateAndItsBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := peerlanetest.NewLink(&peerlanetest.LinkOptions{Delay: time.Second, Rate: 1 << 10, Buffer: 8 << 10}).Ends()
		began := time.Now()
		require.NoError(t, a.SetWriteDeadline(began.Add(time.Second)))
		n, err := a.Write(make([]byte, 16<<10))
		require.ErrorContains(t, err, "timeout")
		require.Equal(t, 8<<10, n)
		_, err = io.ReadFull(b, make([]byte, n))
		require.NoError(t, err)
		require.Equal(t, 9*time.Second, time.Since(began))
	})
}

// Claim: peerlanetest.LinkOptions.CutDelivers
func TestWhatWasWrittenBeforeACutMayArrive(t *testing.T) {
	for _, delivers := range []bool{false, true} {
		l := peerlanetest.NewLink(&peerlanetest.LinkOptions{CutDelivers: delivers})
		a, b := l.Ends()
		l.CutAfter(5)
		_, err := a.Write([]byte("hello, world"))
		require.ErrorIs(t, err, syscall.ECONNRESET)
		got, err := io.ReadAll(b)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.Equal(t, map[bool]string{false: "", true: "hello"}[delivers], string(got))
	}
}

func TestALinkBreaksOnCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := peerlanetest.NewLink(nil)
		a, b := l.Ends()
		say := func(text string) {
			t.Helper()
			_, err := a.Write([]byte(text))
			require.NoError(t, err)
		}
		hear := func() (string, error) {
			got := make([]byte, 100)
			_ = b.SetReadDeadline(time.Now().Add(time.Hour))
			n, err := b.Read(got)
			return string(got[:n]), err
		}
		l.Freeze()
		say("frozen")
		_, err := hear()
		require.ErrorContains(t, err, "timeout")
		l.Thaw()
		got, err := hear()
		require.NoError(t, err)
		require.Equal(t, "frozen", got)
		l.SetDelay(time.Minute)
		say("late")
		began := time.Now()
		_, err = hear()
		require.NoError(t, err)
		require.Equal(t, time.Minute, time.Since(began))
		l.Vanish()
		say("lost")
		_, err = hear()
		require.ErrorContains(t, err, "timeout")
		l.Cut()
		_, err = hear()
		require.ErrorIs(t, err, syscall.ECONNRESET)
	})
}
