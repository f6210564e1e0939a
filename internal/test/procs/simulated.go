package procs

import (
	"flag"
	"runtime"
	"testing"
)

// Tests with libp2p hosts on a simulated network run on one processor under the race detector, too. With Go 1.26, the detector ends the process
// now and then when two timers of one bubble of testing/synctest that are due at once start on two processors, and libp2p's dials start many
// of these.

// Simulated makes all tests of a package run on one processor, unless benchmarks run. TestMain calls it.
func Simulated() {
	One()
	if flag.Lookup("test.bench").Value.String() == "" {
		runtime.GOMAXPROCS(1)
	}
}

// Alone makes a test that is not parallel run on one processor.
func Alone(t testing.TB) {
	before := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}
