// Package procs says how many processors the tests of a package use, how many of them run at once, and how often they collect garbage.
package procs

import (
	"flag"
	"os"
	"runtime"
	"runtime/debug"
)

// One makes tests run on one processor, unless -cpu says how many. In virtual time nearly every goroutine waits for the one that runs, and
// on several processors a third of the work is waking the others up. Benchmarks, and tests under the race detector, which `make race` runs,
// have them all. TestMain calls it.
func One() {
	flag.Parse()
	collectSeldom()
	if !raceEnabled && flag.Lookup("test.bench").Value.String() == "" {
		runtime.GOMAXPROCS(1)
	}
}

// collectSeldom makes the garbage collector wait until the heap is five times what is in use. It is small in tests, and is collected so
// often by default that a tenth of the work is that.
func collectSeldom() {
	if flag.Lookup("test.bench").Value.String() == "" && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}
