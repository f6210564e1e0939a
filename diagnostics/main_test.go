package diagnostics

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/internal/test/procs"
)

func TestMain(m *testing.M) {
	procs.Parallel(4)
	goleak.VerifyTestMain(m)
}
