package node

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// udpBuffer is the buffer size that quic-go needs, as the kernel reports it: on Linux twice the requested size.
const udpBuffer = 7 << 20

// UDPBufferAdvice returns the command that raises the system's limits of UDP buffers if they are too small for QUIC at full speed, or "" if
// they are large enough or unknown. It reads Linux's limits and changes nothing.
func UDPBufferAdvice() string { return udpAdvice("/proc/sys/net/core") }

// udpAdvice is UDPBufferAdvice for another folder.
func udpAdvice(dir string) string {
	var raise []string
	for _, name := range []string{"rmem_max", "wmem_max"} {
		data, err := os.ReadFile(dir + "/" + name)
		if err != nil {
			continue // not Linux, or not readable
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
