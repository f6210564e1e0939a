package pipe

import (
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAPipeTakesAWindowAndThenWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := New()
		n, err := near.Write(make([]byte, Window))
		require.NoError(t, err)
		require.Equal(t, Window, n)

		require.NoError(t, near.SetWriteDeadline(time.Now().Add(time.Hour)))
		started := time.Now()
		n, err = near.Write([]byte("beyond"))
		require.Zero(t, n)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, time.Hour, time.Since(started))

		require.NoError(t, near.SetWriteDeadline(time.Time{}))
		wrote := make(chan error, 1)
		go func() { _, err := near.Write([]byte("beyond")); wrote <- err }()
		synctest.Wait()
		require.Empty(t, wrote)
		_, err = io.ReadFull(far, make([]byte, 6))
		require.NoError(t, err)
		require.NoError(t, <-wrote)
	})
}

func TestAPipeDeadlineCanBeMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, _ := New()
		started := time.Now()
		errs := make(chan error, 1)
		require.NoError(t, near.SetReadDeadline(started.Add(time.Minute)))
		go func() { _, err := near.Read(make([]byte, 1)); errs <- err }()
		synctest.Wait()
		require.NoError(t, near.SetReadDeadline(started.Add(time.Hour)))
		require.ErrorIs(t, <-errs, os.ErrDeadlineExceeded)
		require.Equal(t, time.Hour, time.Since(started))
	})
}

func TestAPipeResetKeepsWhatHadEndedAndDropsTheRest(t *testing.T) {
	near, far := New()
	_, err := near.Write([]byte("whole"))
	require.NoError(t, err)
	require.NoError(t, near.CloseWrite())
	_, err = far.Write([]byte("lost"))
	require.NoError(t, err)
	require.NoError(t, near.ResetWithError(7))

	got, err := io.ReadAll(far)
	require.NoError(t, err)
	require.Equal(t, "whole", string(got))
	_, err = far.Write([]byte("x"))
	require.Equal(t, &network.StreamError{ErrorCode: 7, Remote: true}, err)
	_, err = near.Read(make([]byte, 8))
	require.Equal(t, &network.StreamError{ErrorCode: 7}, err)
	_, err = near.Write([]byte("x"))
	require.Error(t, err)
	require.NoError(t, near.Reset())
}

func TestAClosedPipeEndHasNoTimer(t *testing.T) {
	for _, end := range []func(*End) error{(*End).Close, (*End).Reset} {
		near, _ := New()
		require.NoError(t, near.SetDeadline(time.Now().Add(time.Hour)))
		require.NotNil(t, near.read.timer)
		require.NoError(t, end(near))
		require.Nil(t, near.read.timer)
		require.Nil(t, near.write.timer)
		_, err := near.Read(make([]byte, 1))
		require.Error(t, err)
	}
}
