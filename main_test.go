package peerlane

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// nettestCount is how often each transport runs nettest.TestConn. CI runs 20.
var nettestCount = flag.Int("nettest.count", 2, "repetitions of nettest.TestConn per transport")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
