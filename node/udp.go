package node

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// udpBuffer is what quic-go wants of the kernel, as the kernel reports it: on Linux twice what was asked for.
const udpBuffer = 7 << 20

// UDPBufferAdvice returns the command that raises the system's limits of UDP buffers when they are too small for QUIC at
// full speed, or "" when they are large enough or cannot be told. It reads Linux's limits and changes nothing.
func UDPBufferAdvice() string { return udpAdvice("/proc/sys/net/core") }

// udpAdvice is UDPBufferAdvice on another folder.
func udpAdvice(dir string) string {
	var raise []string
	for _, name := range []string{"rmem_max", "wmem_max"} {
		data, err := os.ReadFile(dir + "/" + name)
		if err != nil {
			continue // not Linux, or hidden
		}
		size, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err == nil && 2*size < udpBuffer {
			raise = append(raise, fmt.Sprintf("net.core.%s=%d", name, udpBuffer))
		}
	}
	if len(raise) == 0 {
		return ""
	}
	return "sysctl -w " + strings.Join(raise, " ")
}
