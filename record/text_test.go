package record

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// A text that is too long is cut between letters: what is sent is UTF-8 (spec 2.5).
func TestTextsAreCutBetweenLetters(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("x", maxText), strings.Repeat("x", maxText+1), strings.Repeat("é", maxText),
		"x" + strings.Repeat("é", maxText), strings.Repeat("世", maxText), strings.Repeat("🙂", 257), "x" + strings.Repeat("🙂", 257)} {
		got := cut(text)
		require.True(t, utf8.ValidString(got), "%q", got)
		require.True(t, strings.HasPrefix(text, got))
		require.LessOrEqual(t, len(got), maxText)
		require.Greater(t, len(got), min(len(text), maxText)-utf8.UTFMax)
	}
	require.Len(t, cut(strings.Repeat("\xff", 2*maxText)), maxText, "what is none is sent as it is")
}
