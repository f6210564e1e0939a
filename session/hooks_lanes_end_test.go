package session

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// A lane that begins while its session ends, after the ends of the lanes have been reported, is not reported: its end could not be.
func TestNoLaneIsReportedAfterTheEndsOfLanes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		opened, closed := 0, 0
		hooks := &Hooks{OnLaneOpen: func(*Session, Lane) { opened++ }, OnLaneClose: func(*Session, Lane) { closed++ }}
		p := newPair(t, Config{Hooks: hooks}, AcceptorConfig{})
		show := func() (remove func()) {
			return p.dialer.ForDiagnostics().Show("record", "x", func() any { return nil }, nil)
		}
		early := show()
		p.dialer.announceLanesEnded()
		late := show()
		early()
		late()
		require.NoError(t, p.dialer.Close())
		synctest.Wait()
		require.Equal(t, []int{1, 1}, []int{opened, closed})
	})
}
