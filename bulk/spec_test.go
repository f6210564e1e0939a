package bulk

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/defaults"
)

// Every number of SPEC.md, and of the docs, is the code's.
func TestSpecHasTheNumbersOfTheCode(t *testing.T) {
	text, err := os.ReadFile("SPEC.md")
	require.NoError(t, err)
	for _, row := range []string{
		fmt.Sprintf("| magic | 4 | 0x%02X 0x%02X 0x%02X 0x%02X |", helloMagic[0], helloMagic[1], helloMagic[2], helloMagic[3]),
		fmt.Sprintf("| version | u8 | %d |", helloVersion),
		fmt.Sprintf("version %d", helloVersion),
		fmt.Sprintf("| kind | u8 | 0x%02x %v, 0x%02x %v, 0x%02x %v |", uint8(helloOpen), helloOpen, uint8(helloAccept), helloAccept,
			uint8(helloRefuse), helloRefuse),
		fmt.Sprintf("bit %d, *zstd*", capZstd>>1),
		fmt.Sprintf("| id | %d |", len(laneID{})),
		fmt.Sprintf("1 to %d; 0 in a REFUSE", maxStrands),
		fmt.Sprintf("of a REFUSE: %d protocol, %d version, %d not accepted, %d busy; otherwise 0", refuseProtocol, refuseVersion,
			refuseNotAccepted, refuseBusy),
		fmt.Sprintf("within %d s, under", int(strandsTimeout.Seconds())),
		fmt.Sprintf("| 0x%02x | %v |", uint8(blockRaw), blockRaw),
		fmt.Sprintf("| 0x%02x | %v |", uint8(blockZstd), blockZstd),
		fmt.Sprintf("| 0x%02x | %v |", uint8(blockEnd), blockEnd),
		fmt.Sprintf("raw is 1 to %d", maxBlock),
	} {
		require.Contains(t, string(text), row)
	}
	require.Len(t, hello{kind: helloOpen}.append(nil), helloSize)

	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	require.Contains(t, string(doc), fmt.Sprintf("%d strands", maxStrands))
	require.Contains(t, string(doc), fmt.Sprintf("blocks of %d KiB", maxBlock>>10))
	require.Contains(t, string(doc), fmt.Sprintf("within %d s", int(defaults.Close.Seconds())))
}

// What the docs of Options say of the zero value, and of the bounds.
func TestSpecOfTheOptionsIsTheirDoc(t *testing.T) {
	text, err := os.ReadFile("options.go")
	require.NoError(t, err)
	o := (*Options)(nil).withDefaults()
	for field, says := range map[string]string{
		"Strands":          fmt.Sprintf("1 to %d. If zero, %d.", maxStrands, o.Strands),
		"Rate":             "If zero, it is not bounded",
		"HandshakeTimeout": fmt.Sprintf("If zero, %d s", int(o.HandshakeTimeout.Seconds())),
	} {
		_, rest, found := strings.Cut(string(text), "\t// "+field+" ")
		require.True(t, found, field)
		doc, _, found := strings.Cut(rest, "\n\t"+field+" ")
		require.True(t, found, field)
		require.Contains(t, strings.ReplaceAll(doc, "\n\t// ", " "), says, field)
	}
}
