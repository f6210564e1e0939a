package manifest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// Claim: transfer.Error.Path, transfer.Error.Text, transfer.StagingPrefix
func TestAPathOneBeyondALimitIsRefusedByName(t *testing.T) {
	for text, p := range map[string]string{
		"name is too long":  strings.Repeat("a", MaxComponent+1),
		"too many folders":  strings.Repeat("a/", MaxDepth) + "a",
		"path is too long":  strings.Repeat(strings.Repeat("a", 99)+"/", MaxPath/100) + strings.Repeat("a", 97),
		"staging directory": "a/" + StagingPrefix + "0123/b",
		"staging itself":    StagingPrefix,
	} {
		err := CheckPath(p, Rules{})
		var e *fault.Error
		require.ErrorAs(t, err, &e, text)
		want := fault.CodeTooLarge
		if strings.HasPrefix(text, "staging") {
			want = fault.CodePathUnsafe
		}
		require.Equal(t, want, e.Code, "%s: %v", text, err)
		require.Equal(t, p, e.Path, text)
		require.NotEmpty(t, e.Text, text)
		require.ErrorContains(t, err, e.Text, text)
	}
	require.NoError(t, CheckPath("a"+StagingPrefix, Rules{}))
}

func TestTheDefaultsOfRulesAreThoseThatTheyState(t *testing.T) {
	require.Equal(t, Rules{Entries: 1_000_000, Bytes: 1 << 50, ManifestBytes: 256 << 20}, Rules{}.withDefaults())
}
