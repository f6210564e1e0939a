package faultnet

import (
	"io"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestCutEndsPendingAndFutureCallsAndLosesBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLink(LinkOptions{Buffer: 8})
		a, b := l.Ends()
		_, err := b.Write([]byte("unread"))
		require.NoError(t, err)
		type result struct {
			n   int
			err error
		}
		write, read := make(chan result), make(chan result)
		go func() { n, err := a.Write(make([]byte, 20)); write <- result{n, err} }()
		synctest.Wait()
		c, d := Pipe(LinkOptions{})
		go func() { n, err := c.Read(make([]byte, 1)); read <- result{n, err} }()
		synctest.Wait()
		l.Cut()
		d.Link().Cut()
		w, r := <-write, <-read
		require.Equal(t, 8, w.n)
		require.ErrorIs(t, w.err, syscall.ECONNRESET)
		require.Zero(t, r.n)
		require.ErrorIs(t, r.err, syscall.ECONNRESET)
		for _, end := range []*Conn{a, b} {
			require.ErrorIs(t, second(end.Read(make([]byte, 1))), syscall.ECONNRESET)
			require.ErrorIs(t, second(end.Write([]byte("x"))), syscall.ECONNRESET)
			require.NoError(t, end.Close())
		}
	})
}

func TestCutAfterStopsAtTheByte(t *testing.T) {
	for _, n := range []int64{-1, 0, 1, 9, 10, 11, 19, 20} {
		for _, deliver := range []bool{false, true} {
			l := NewLink(LinkOptions{CutDelivers: deliver})
			a, b := l.Ends()
			_, err := a.Write(pattern(10))
			require.NoError(t, err)
			_, err = io.ReadFull(b, make([]byte, 10))
			require.NoError(t, err)
			l.CutAfter(n)
			first, errA := a.Write(pattern(10))
			second, errB := b.Write(pattern(10))
			want := max(n, 0)
			require.EqualValues(t, min(want, 10), first, "n=%d", n)
			require.EqualValues(t, max(want-10, 0), second, "n=%d", n)
			require.Equal(t, first < 10, errA != nil, "n=%d: %v", n, errA)
			require.Equal(t, second < 10, errB != nil, "n=%d: %v", n, errB)
			for end, sent := range map[*Conn]int{b: first, a: second} {
				got, err := io.ReadAll(end)
				require.ErrorIs(t, err, syscall.ECONNRESET, "n=%d", n)
				if !deliver {
					sent = 0
				}
				require.Equal(t, pattern(sent), append([]byte{}, got...), "n=%d deliver=%v", n, deliver)
			}
		}
	}
}

func TestCutAfterAgainReplacesTheFirst(t *testing.T) {
	l := NewLink(LinkOptions{})
	a, _ := l.Ends()
	l.CutAfter(1)
	l.CutAfter(5)
	n, err := a.Write(pattern(10))
	require.Equal(t, 5, n)
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

func TestFreezeHoldsBytesAndEndsUntilThaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLink(LinkOptions{Buffer: 10})
		a, b := l.Ends()
		_, _ = a.Write([]byte("abc"))
		l.Freeze()
		n, err := a.Write([]byte("def"))
		require.NoError(t, err)
		require.Equal(t, 3, n)
		require.NoError(t, a.CloseWrite())
		requireStill(t, func() error { return second(b.Read(make([]byte, 10))) }, b)
		requireStill(t, func() error { return second(b.Write(pattern(11))) }, b)
		l.Thaw()
		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.Equal(t, "abcdef", string(got))
		_, err = io.ReadFull(a, make([]byte, 10))
		require.NoError(t, err)
	})
}

func TestAFrozenCloseArrivesAfterThaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLink(LinkOptions{})
		a, b := l.Ends()
		l.Freeze()
		require.NoError(t, a.Close())
		require.NoError(t, second(b.Write([]byte("x"))), "b does not know yet")
		l.Thaw()
		require.ErrorIs(t, second(b.Write([]byte("x"))), syscall.EPIPE)
		require.Equal(t, io.EOF, second(b.Read(make([]byte, 1))))
	})
}

func TestVanishIsSilentForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLink(LinkOptions{Buffer: 10})
		a, b := l.Ends()
		_, _ = a.Write([]byte("abc"))
		l.Vanish()
		l.Thaw() // mends nothing
		n, err := a.Write(pattern(7))
		require.NoError(t, err)
		require.Equal(t, 7, n)
		requireStill(t, func() error { return second(a.Write([]byte("x"))) }, a)
		requireStill(t, func() error { return second(b.Read(make([]byte, 1))) }, b)
		require.NoError(t, a.Close())
		requireStill(t, func() error { return second(b.Read(make([]byte, 1))) }, b)
		l.Cut()
		require.ErrorIs(t, second(b.Read(make([]byte, 1))), syscall.ECONNRESET)
	})
}

func TestVanishBeatsBytesThatACutWouldDeliver(t *testing.T) {
	l := NewLink(LinkOptions{CutDelivers: true})
	a, b := l.Ends()
	l.CutAfter(3)
	_, _ = a.Write([]byte("abcd"))
	l.Vanish()
	require.ErrorIs(t, second(b.Read(make([]byte, 1))), syscall.ECONNRESET)
}

func TestASwallowingLinkNeverBlocksAWriterOnceVanished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLink(LinkOptions{Buffer: 1, swallow: true})
		a, _ := l.Ends()
		done := make(chan error)
		go func() { done <- second(a.Write(pattern(100))) }()
		synctest.Wait()
		l.Vanish()
		require.NoError(t, <-done)
	})
}
