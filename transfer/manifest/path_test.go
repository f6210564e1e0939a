package manifest

import (
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// hostilePaths are tricks, and whether they are one on every system or only by portable rules.
var hostilePaths = []struct {
	path     string
	code     Code
	portable bool // only then
}{
	{"", CodePathUnsafe, false},
	{".", CodePathUnsafe, false},
	{"..", CodePathUnsafe, false},
	{"../a", CodePathUnsafe, false},
	{"a/..", CodePathUnsafe, false},
	{"a/../b", CodePathUnsafe, false},
	{"a/../../b", CodePathUnsafe, false},
	{"./a", CodePathUnsafe, false},
	{"a/./b", CodePathUnsafe, false},
	{"a/.", CodePathUnsafe, false},
	{"/", CodePathUnsafe, false},
	{"/etc/passwd", CodePathUnsafe, false},
	{"//host/share", CodePathUnsafe, false},
	{"a//b", CodePathUnsafe, false},
	{"a/", CodePathUnsafe, false},
	{`..\a`, CodePathUnsafe, false},
	{`C:\a`, CodePathUnsafe, false},
	{`\\?\C:\a`, CodePathUnsafe, false},
	{`a\b`, CodePathUnsafe, false},
	{"a\x00", CodePathUnsafe, false},
	{"a\nb", CodePathUnsafe, false},
	{"a\x1b[2J", CodePathUnsafe, false},
	{"a\x7f", CodePathUnsafe, false},
	{"a\u0085", CodePathUnsafe, false},
	{"a\xff", CodePathUnsafe, false},
	{"a\xc0\xae\xc0\xae/b", CodePathUnsafe, false}, // an overlong ".."
	{"\xed\xa0\x80", CodePathUnsafe, false},        // half of a surrogate pair
	{".xfer-0123/journal", CodePathUnsafe, false},
	{"a/.XFER-1/meta", CodePathUnsafe, false},
	{".xf\u200cer-1/meta", CodePathUnsafe, false}, // HFS+ does not see U+200C
	{".xfer-", CodePathUnsafe, false},
	{strings.Repeat("a", MaxComponent+1), CodeTooLarge, false},
	{strings.Repeat("é", MaxComponent/2+1), CodeTooLarge, false}, // bytes, not letters
	{strings.Repeat("a/", MaxDepth) + "a", CodeTooLarge, false},
	{strings.Repeat(strings.Repeat("a", 99)+"/", MaxPath/100) + strings.Repeat("a", 97), CodeTooLarge, false},

	{"C:a", CodePathUnsafe, true},
	{"a:stream", CodePathUnsafe, true},
	{"a<b", CodePathUnsafe, true},
	{"a?", CodePathUnsafe, true},
	{"a*", CodePathUnsafe, true},
	{"a|b", CodePathUnsafe, true},
	{`a"b`, CodePathUnsafe, true},
	{"a>", CodePathUnsafe, true},
	{"a.", CodePathUnsafe, true},
	{"a ", CodePathUnsafe, true},
	{"a /b", CodePathUnsafe, true},
	{"...", CodePathUnsafe, true},
	{".. ", CodePathUnsafe, true},
	{"con", CodePathUnsafe, true},
	{"a/NUL", CodePathUnsafe, true},
	{"nul.txt", CodePathUnsafe, true},
	{"Aux .c", CodePathUnsafe, true},
	{"PRN.tar.gz", CodePathUnsafe, true},
	{"com1", CodePathUnsafe, true},
	{"LPT9.x/a", CodePathUnsafe, true},
	{"COM¹", CodePathUnsafe, true},
	{"CONIN$", CodePathUnsafe, true},
	{"XFER-0~1/journal", CodePathUnsafe, true},
	{"xf3a2b~1", CodePathUnsafe, true},
}

func TestHostilePathsAreRefused(t *testing.T) {
	for _, test := range hostilePaths {
		requireCode(t, test.code, CheckPath(test.path, Rules{Portable: true}), test.path)
		if test.portable {
			require.NoError(t, CheckPath(test.path, Rules{}), test.path)
			continue
		}
		requireCode(t, test.code, CheckPath(test.path, Rules{}), test.path)
	}
}

// Claim: manifest.MaxComponent, manifest.MaxDepth, manifest.MaxPath, manifest.Rules.Portable
func TestOrdinaryPathsAreTaken(t *testing.T) {
	for _, p := range []string{
		"a", "a/b", ".hidden", "..a", "a..", "a..b/c", " a", "-rf", "~", "$HOME", "%2e%2e", "日本/語.txt", "é", "e\u0301", "👩\u200d👩",
		".xfer", "xfer-1", "a.xfer-1", "console", "com", "com10", "lpt", "nul1", "file~1.txt", "Aux_x.c", "xfiles", "xf~a",
		strings.Repeat("a", MaxComponent), strings.Repeat("a/", MaxDepth-1) + "a",
		strings.Repeat(strings.Repeat("a", 99)+"/", MaxPath/100) + strings.Repeat("a", 96),
	} {
		portable := !strings.HasSuffix(p, ".")
		require.NoError(t, CheckPath(p, Rules{}), p)
		require.Equal(t, portable, CheckPath(p, Rules{Portable: true}) == nil, p)
	}
}

// Claim: manifest.CodePathUnsafe, manifest.Rules.Symlinks
func TestLinksOnlyLeadInside(t *testing.T) {
	for _, test := range []struct {
		at, target string
		code       Code
	}{
		{"a", "b", ""},
		{"a/b", "../c", ""},
		{"a/b", "..", ""},
		{"a", ".", ""},
		{"a/b/c", "../../d/e", ""},
		{"a", "", CodePathUnsafe},
		{"a", "..", CodePathUnsafe},
		{"a", "../b", CodePathUnsafe},
		{"a/b", "../../c", CodePathUnsafe},
		{"a/b", "../../a/c", CodePathUnsafe}, // by the name of the destination, perhaps
		{"a", "/etc/passwd", CodePathUnsafe},
		{"a", "/", CodePathUnsafe},
		{"a/b/c/x", "up/../../y", CodePathUnsafe}, // up -> ../../.. would make it lead out
		{"a", "b/../c", CodePathUnsafe},
		{"a", "b/", CodePathUnsafe},
		{"a", "./b", CodePathUnsafe},
		{"a", `..\b`, CodePathUnsafe},
		{"a", "b\x00", CodePathUnsafe},
		{"a", "b\xff", CodePathUnsafe},
		{"a", ".xfer-1/journal", CodePathUnsafe},
		{"a", strings.Repeat("b", MaxComponent+1), CodeTooLarge},
		{"a", strings.Repeat("b/", MaxPath) + "b", CodeTooLarge},
	} {
		err := CheckTarget(test.at, test.target, Rules{})
		if test.code == "" {
			require.NoError(t, err, "%q -> %q", test.at, test.target)
			require.NoError(t, check(t, Rules{Symlinks: true}, link(1, test.at, test.target)))
			continue
		}
		requireCode(t, test.code, err, "%q -> %q", test.at, test.target)
	}
	requireCode(t, CodePathUnsafe, CheckTarget("a", "C:b", Rules{Portable: true}))
	requireCode(t, CodePathUnsafe, check(t, Rules{}, link(1, "a", "b")), "links are off")
}

// What is taken is local by the standard library's own judgement, and by portable rules on Windows as well.
func FuzzCheckPath(f *testing.F) {
	for _, test := range hostilePaths {
		f.Add(test.path, "b")
		f.Add("a/b", test.path)
	}
	f.Fuzz(func(t *testing.T, p, target string) {
		if CheckPath(p, Rules{}) != nil {
			require.Error(t, CheckPath(p, Rules{Portable: true}), "portable rules take less")
			return
		}
		require.True(t, filepath.IsLocal(filepath.FromSlash(p)), "%q", p)
		require.Equal(t, path.Clean(p), p)
		require.NotContains(t, strings.Split(p, "/"), "..")
		if CheckTarget(p, target, Rules{}) == nil {
			require.True(t, filepath.IsLocal(path.Join(path.Dir(p), target)), "%q -> %q", p, target)
		}
	})
}
