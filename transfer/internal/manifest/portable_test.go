package manifest

import (
	"hash/maphash"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// plainFold is fold, slowly and letter by letter.
func plainFold(name string) string {
	var key []rune
	for _, r := range norm.NFD.String(name) {
		switch {
		case unicode.Is(unicode.Cf, r):
		case foldsToMany(r):
			key = append(key, []rune(cases.Fold().String(string(r)))...)
		default:
			key = append(key, foldRune(r))
		}
	}
	return string(key)
}

func TestNamesAreFoldedAsTheirLettersAre(t *testing.T) {
	var f folding // one for all: what it keeps must not tell
	letter := rapid.OneOf(rapid.Rune(), rapid.RuneFrom([]rune("aAzZ0 .éÉÅΣσςßẞŉﬁﬀİıI\u0130\u0301\u0323\u200d\ufeffЙйĀā\u0500\u0100가각")))
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringOfN(letter, 0, 40, 255).Draw(t, "name")
		want := plainFold(name)
		require.Equal(t, want, string(f.fold(name)), "%+q", name)
		require.Equal(t, want, fold(name), "%+q", name)
	})
	marks := "a" + strings.Repeat("\u0301\u0323", 60)
	require.Equal(t, plainFold(marks), string(f.fold(marks)))
}

// Two names whose hashes are equal are still two.
func TestHashesAreNotNames(t *testing.T) {
	c, err := NewChecker(Rules{Portable: true})
	require.NoError(t, err)
	at := maphash.String(c.seed, "b")
	c.open[0].names = map[uint64]string{at: "another", at + 1: "one more"}
	require.NoError(t, c.Add(file(1, "B")))
	require.Equal(t, "B", c.open[0].names[at+2])
	requireCode(t, fault.CodeExists, c.Add(file(2, "b")))
}
