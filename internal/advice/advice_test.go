package advice

import (
	"fmt"
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

var isWord = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)

func TestEachReasonHasItsWords(t *testing.T) {
	require.Equal(t, words[Failed], Of("something new"))
	for r, w := range words {
		require.Regexp(t, isWord, string(r))
		require.NotEmpty(t, w.What, r)
		if r == Reached {
			require.Empty(t, w.AtCommand())
			continue
		}
		require.NotEmpty(t, w.Do, r)
		require.NotContains(t, w.What+w.Do, "--", "%s: flags are the command's", r)
		require.NotEmpty(t, w.AtCommand())
	}
	require.Equal(t, words[Self].Command, Of(Self).AtCommand())
	require.Equal(t, words[Invalid].Do, Of(Invalid).AtCommand())
}

// The page has the reasons, and their sentences.
func TestThePageListsTheReasons(t *testing.T) {
	page, err := os.ReadFile("../../docs/DIAGNOSTICS.md")
	require.NoError(t, err)
	for r, w := range words {
		require.Contains(t, string(page), fmt.Sprintf("\n| `%s` | %s |\n", r, w.What))
	}
}
