package codes

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCodeNamesAreDistinctAndNoneIsEmpty(t *testing.T) {
	seen := map[string]Code{}
	for c := range Code(len(names)) {
		name := c.String()
		require.NotEmpty(t, name, "code %d", uint32(c))
		require.NotContains(t, seen, name, "code %d", uint32(c))
		seen[name] = c
	}
}

// The upper half matters where int has 32 bits: the number is the peer's choice.
func TestUnknownCodesShowTheirNumber(t *testing.T) {
	require.Equal(t, "code 1000", Code(1000).String())
	require.Equal(t, "code 2147483648", Code(1<<31).String())
	require.Equal(t, "code 4294967295", Code(math.MaxUint32).String())
	require.NotEmpty(t, Code(len(names)).String())
}
