package flow

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every number of segments in resume's SPEC.md is the code's.
func TestSpecHasTheNumbersOfTheCode(t *testing.T) {
	text, err := os.ReadFile("../../resume/SPEC.md")
	require.NoError(t, err)
	rows := []string{
		fmt.Sprintf("| %d bytes | `headerSize` |", headerSize),
		fmt.Sprintf("| %d | `maxLength` |", maxLength),
		fmt.Sprintf("| %d s | `handoverTimeout` |", int(handoverTimeout.Seconds())),
		fmt.Sprintf("| %d bytes | `readBuffer` |", readBuffer),
	}
	for k := kindStart; k <= kindStop; k++ {
		rows = append(rows, fmt.Sprintf("| 0x%02x | %v |", uint8(k), k))
	}
	for _, row := range rows {
		require.Contains(t, string(text), row)
	}
}
