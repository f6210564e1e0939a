package peerlane

import (
	"flag"
	"testing"

	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/internal/test/procs"
)

// nettestCount is how often each transport runs nettest.TestConn in either direction. `make nettest` runs 5, `make nightly` 50.
var nettestCount = flag.Int("nettest.count", 1, "repetitions of nettest.TestConn per transport")

func TestMain(m *testing.M) {
	procs.Parallel(16)
	goleak.VerifyTestMain(m)
}
