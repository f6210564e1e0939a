package resume

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every number of SPEC.md is the code's: those of segments are checked in package flow.
func TestSpecHasTheNumbersOfTheCode(t *testing.T) {
	text, err := os.ReadFile("SPEC.md")
	require.NoError(t, err)
	var rows []string
	for m := messageNew; m <= messageRefuse; m++ {
		rows = append(rows, fmt.Sprintf("| 0x%02x | %v |", uint8(m), m))
	}
	for code, name := range map[refusal]string{
		refuseProtocol: "protocol", refuseVersion: "version", refuseUnknown: "unknown", refuseStale: "stale", refuseBusy: "busy",
	} {
		rows = append(rows, fmt.Sprintf("| 0x%02x | %s |", uint8(code), name))
	}
	rows = append(rows,
		fmt.Sprintf("| 4 | 0x%02X 0x%02X 0x%02X 0x%02X |", helloMagic[0], helloMagic[1], helloMagic[2], helloMagic[3]),
		fmt.Sprintf("| version | u8 | %d |", helloVersion),
		fmt.Sprintf("0x%02x: *live*", helloLive),
		fmt.Sprintf("| %d bytes | `helloSize` |", helloSize),
		fmt.Sprintf("| %d bytes | `helloPrefix` |", helloPrefix),
		fmt.Sprintf("| %d | `minWindow` |", minWindow),
		fmt.Sprintf("| %d | `maxHellos` |", maxHellos),
	)
	for _, row := range rows {
		require.Contains(t, string(text), row)
	}
	require.Equal(t, helloSize, len(hello{}.append(nil)))
}
