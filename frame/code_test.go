package frame

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCodeNamesAreDistinctAndNoneIsEmpty(t *testing.T) {
	seen := map[string]Code{}
	for c := range Code(len(codeNames)) {
		name := c.String()
		require.NotEmpty(t, name, "code %d", uint32(c))
		require.NotContains(t, seen, name, "code %d", uint32(c))
		seen[name] = c
	}
}

// The upper half matters where int has 32 bits: the number is the peer's choice.
// Claim: frame.Failure.Code
func TestUnknownCodesShowTheirNumber(t *testing.T) {
	require.Equal(t, "code 1000", Code(1000).String())
	require.Equal(t, "code 2147483648", Code(1<<31).String())
	require.Equal(t, "code 4294967295", Code(math.MaxUint32).String())
	require.NotEmpty(t, Code(len(codeNames)).String())
}

// libp2p's own stream error codes are 0x1001..0x1008; no code of ours, known or not yet, comes near them. Row: C4.
func TestResetCodesStayClearOfLibp2p(t *testing.T) {
	require.Equal(t, []byte("PL\x00\x00"), binary.BigEndian.AppendUint32(nil, CodeBase))
	require.Less(t, uint32(len(codeNames)), uint32(1<<16), "a code runs into the base")
}
