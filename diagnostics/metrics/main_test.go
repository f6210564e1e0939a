package metrics

import (
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/internal/test/procs"
)

func TestMain(m *testing.M) {
	procs.Parallel(4)
	goleak.VerifyTestMain(m)
}

// newHost returns a host that listens nowhere: its client reaches its server within the process.
func newHost(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay())
	require.NoError(t, err)
	t.Cleanup(func() { _ = h.Close() })
	return h
}
