package punch_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/punch"
	"github.com/peerlane/peerlane/peerlanetest"
)

// A service remembers the last attempts with a peer, those that the peer began included.
func TestAServiceRemembersItsLastAttempts(t *testing.T) {
	inWorld(t, hard, hard, "", func(t *testing.T, w *world) {
		require.Empty(t, w.ofAlice.Attempts(w.bob.ID()))
		w.meet(t)
		require.ErrorIs(t, w.ofAlice.Direct(t.Context(), w.bob.ID()), punch.ErrNoDirect)
		time.Sleep(10 * time.Minute)
		for _, all := range [][]punch.Attempt{w.ofAlice.Attempts(w.bob.ID()), w.ofBob.Attempts(w.alice.ID())} {
			require.Len(t, all, 4)
			for i, a := range all {
				require.NotEmpty(t, a.Why)
				require.LessOrEqual(t, len(a.Why), 200)
				require.False(t, strings.Contains(a.Why, "\n"))
				require.True(t, i == 0 || !a.At.Before(all[i-1].At))
			}
		}
	})
	for _, nat := range []peerlanetest.NAT{none, easy} {
		inWorld(t, nat, easy, "", func(t *testing.T, w *world) {
			w.meet(t)
			require.NoError(t, w.ofAlice.Direct(t.Context(), w.bob.ID()))
			time.Sleep(time.Second)
			synctest.Wait()
			all := append(w.ofAlice.Attempts(w.bob.ID()), w.ofBob.Attempts(w.alice.ID())...)
			require.NotEmpty(t, all)
			require.Empty(t, all[len(all)-1].Why)
		})
	}
}
