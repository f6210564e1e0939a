package procs

import (
	"flag"
	"runtime"
	"strconv"
)

// Parallel makes n tests that are marked as parallel run at once, unless -parallel says how many: they wait for real networks and
// processes, and hardly use a processor. TestMain calls it.
func Parallel(n int) {
	flag.Parse()
	collectSeldom()
	f := flag.Lookup("test.parallel")
	if f.Value.String() == f.DefValue && runtime.GOMAXPROCS(0) < n {
		_ = f.Value.Set(strconv.Itoa(n)) // never fails: it is a number
	}
}
