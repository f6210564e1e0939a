// Package procs says how many processors the tests of a package use, and how many of them run at once.
package procs

import (
	"flag"
	"runtime"
)

// One makes tests run on one processor, unless -cpu says how many. In virtual time nearly every goroutine waits for the one that runs, and
// on several processors a third of the work is waking the others up. Benchmarks, and tests under the race detector, which `make race` runs,
// have them all. TestMain calls it.
func One() {
	flag.Parse()
	if !raceEnabled && flag.Lookup("test.bench").Value.String() == "" {
		runtime.GOMAXPROCS(1)
	}
}
