package staging

import (
	"errors"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// midway runs call, and during while it is in the hook that set sets.
func midway(set func(hook func()), call, during func()) {
	entered, leave, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	set(func() {
		entered <- struct{}{}
		<-leave
	})
	go func() {
		call()
		close(done)
	}()
	<-entered
	set(nil)
	during()
	close(leave)
	<-done
}

// What is on its way to the disk while a sync fails may be lost with the rest, and no later sync says so.
func TestAWriteDuringASyncThatFailsIsNotHad(t *testing.T) {
	d := newTestDisk(1, false)
	s := createMem(t, d, Options{})
	data := content(2, 100)
	require.NoError(t, s.WriteAt(2, data[:50], 0))
	midway(func(hook func()) { d.written = hook }, func() {
		if err := s.WriteAt(2, data[50:], 50); codeOf(err) != fault.CodeIO || !errors.Is(err, ErrLost) {
			t.Errorf("got %v", err)
		}
	}, func() {
		d.fail[d.ops+1] = syscall.EIO
		requireIs(t, fault.CodeIO, s.Sync())
	})
	require.Equal(t, []Range{{0, 100}}, s.Missing(2))
	require.Zero(t, s.Dirty())
	require.NoError(t, s.WriteAt(2, data, 0))
	require.NoError(t, publish(s, 2))
	require.Equal(t, data, d.names["d/a"].data)
}

// A sync takes what was written when it began: what is on its way is the next one's.
func TestAWriteDuringASyncIsTheNextOnes(t *testing.T) {
	d := newTestDisk(1, false)
	s := createMem(t, d, Options{})
	data := content(2, 100)
	require.NoError(t, s.WriteAt(2, data[:50], 0))
	midway(func(hook func()) { d.written = hook }, func() {
		if err := s.WriteAt(2, data[50:], 50); err != nil {
			t.Error(err)
		}
	}, func() {
		require.NoError(t, s.Sync())
		require.Equal(t, []Range{{0, 50}}, s.Have(2))
		requireIs(t, fault.CodeProtocol, s.WriteAt(2, data[60:70], 60))
		requireIs(t, fault.CodeProtocol, s.WriteFile(2, data))
		requireIs(t, fault.CodeProtocol, publish(s, 2))
	})
	require.EqualValues(t, 50, s.Dirty())
	require.NoError(t, s.Sync())
	require.Equal(t, []Range{{0, 100}}, s.Have(2))
}

// A part that is being read stays open when it is published, or would make room for another.
func TestAPartThatIsBeingReadStaysOpen(t *testing.T) {
	d := newTestDisk(1, false)
	s := createMem(t, d, Options{OpenParts: 1})
	data := content(2, 100)
	require.NoError(t, s.WriteAt(2, data, 0))
	require.NoError(t, s.Sync())
	midway(func(hook func()) { d.reading = hook }, func() {
		b := make([]byte, 100)
		if _, err := s.ReadAt(2, b, 0); err != nil || string(b) != string(data) {
			t.Errorf("got %v", err)
		}
	}, func() {
		require.NoError(t, s.WriteAt(5, content(5, 64), 0))
		require.NoError(t, publish(s, 5))
		require.NoError(t, publish(s, 2))
	})
	require.Empty(t, s.open)
}

// With SyncEach a call that could not make its piece durable may be repeated, whatever has failed.
func TestAPieceThatCouldNotBeSyncedMayBeWrittenAgain(t *testing.T) {
	for in := 1; in <= 8; in++ {
		d := newTestDisk(1, false)
		s := createMem(t, d, Options{Sync: SyncEach})
		d.fail[d.ops+in] = syscall.ENOSPC
		data := content(2, 100)
		if err := s.WriteAt(2, data[:50], 0); err != nil {
			requireIs(t, fault.CodeNoSpace, err)
			require.Zero(t, s.Dirty())
			require.NoError(t, s.WriteAt(2, data[:50], 0), "failed at %d", in)
		}
		d.fail = nil
		require.Equal(t, []Range{{0, 50}}, s.Have(2))
		require.NoError(t, s.WriteAt(2, data[50:], 50))
		require.NoError(t, publish(s, 2))
		require.Equal(t, data, d.names["d/a"].data)
	}
}
