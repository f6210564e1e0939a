package punch

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/internal/test/procs"
)

func TestMain(m *testing.M) {
	procs.Simulated()
	goleak.VerifyTestMain(m)
}
