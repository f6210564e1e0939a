package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUDPAdviceNamesTheLimitsThatAreTooSmall(t *testing.T) {
	for _, c := range []struct{ read, write, want string }{
		{"212992\n", "212992\n", "sysctl -w net.core.rmem_max=7340032 net.core.wmem_max=7340032"},
		{"212992\n", "7500000\n", "sysctl -w net.core.rmem_max=7340032"},
		{"3670016\n", "3670015\n", "sysctl -w net.core.wmem_max=7340032"},
		{"7500000\n", "7500000\n", ""},
		{"", "many", ""},
	} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "rmem_max"), []byte(c.read), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "wmem_max"), []byte(c.write), 0o600))
		require.Equal(t, c.want, udpAdvice(dir), "%+v", c)
	}
	require.Empty(t, udpAdvice(filepath.Join(t.TempDir(), "none")))
	_ = UDPBufferAdvice() // any result is fine on this machine
}
