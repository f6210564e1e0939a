package peerlane

import (
	"flag"
	"runtime"
	"testing"

	"go.uber.org/goleak"
)

// nettestCount is how often each transport runs nettest.TestConn in either direction. `make nettest` runs 5, `make nightly` 50.
var nettestCount = flag.Int("nettest.count", 1, "repetitions of nettest.TestConn per transport")

func TestMain(m *testing.M) {
	flag.Parse()
	if n := flag.Lookup("test.parallel"); n.Value.String() == n.DefValue && runtime.GOMAXPROCS(0) < 8 {
		_ = n.Value.Set("8") // parallel tests wait for real networks, and hardly use a processor
	}
	goleak.VerifyTestMain(m)
}
