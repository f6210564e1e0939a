package peerlanetest_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
)

// What a test cleans up ends before the hosts do, also those that were made later.
func TestHostsOutliveTheCleanupsOfTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listening := 0
		inner := &cleanups{TB: t}
		h := peerlanetest.NewHosts(inner, &peerlanetest.HostsOptions{Relayed: true})
		inner.Cleanup(func() {
			listening = len(h.Relay.Host().Network().ListenAddresses())
		})
		h.Relay.Restart()
		inner.run()
		require.Positive(t, listening, "the relay ended before the test's own cleanup")
	})
}

// cleanups runs the Cleanups of a test when it is told to.
type cleanups struct {
	testing.TB
	all []func()
}

func (c *cleanups) Cleanup(fn func()) { c.all = append(c.all, fn) }

func (c *cleanups) run() {
	for len(c.all) > 0 {
		fn := c.all[len(c.all)-1]
		c.all = c.all[:len(c.all)-1]
		fn()
	}
}
