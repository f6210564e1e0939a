package lively

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quietFrom is a peer that does not answer for some time.
func quietFrom(at, until time.Duration) Ping {
	began := time.Now()
	return func(ctx context.Context) error {
		if since := time.Since(began); since >= at && since < until {
			select {
			case <-time.After(until - since):
			case <-ctx.Done():
			}
		}
		return ctx.Err()
	}
}

func TestTimeStandsStillWhileThePeerIsSilent(t *testing.T) {
	for name, c := range map[string]struct {
		at, until time.Duration
		want      time.Duration
	}{
		"never":               {0, 0, 5 * time.Second},
		"at once, for 7 s":    {0, 7 * time.Second, 11 * time.Second}, // what was asked first is answered at 7 s
		"in the middle":       {2500 * time.Millisecond, time.Minute, 62 * time.Second},
		"at the end, for 1 h": {4900 * time.Millisecond, time.Hour, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				ctx, cancel := WithTimeout(t.Context(), 5*time.Second, quietFrom(c.at, c.until))
				defer cancel()
				<-ctx.Done()
				require.Equal(t, context.DeadlineExceeded, context.Cause(ctx))
				require.Equal(t, c.want, time.Since(began))
			})
		})
	}
}

func TestAPeerThatIsGoneHasTheRestOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		expired := make(chan struct{})
		After(5*time.Second, func(context.Context) error { return errors.New("gone") }, func() { close(expired) })
		<-expired
		require.Equal(t, 5*time.Second, time.Since(began))
	})
}

func TestStopEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, at := range []time.Duration{0, time.Second, 2500 * time.Millisecond, 4 * time.Second} {
			stop := After(5*time.Second, quietFrom(2*time.Second, time.Hour), func() { t.Error("it was stopped") })
			time.Sleep(at)
			stop()
			synctest.Wait()
		}
		time.Sleep(2 * time.Hour)
	})
}
