package manifest

import (
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// hostilePaths are tricks, and whether they are one on every system or only by portable rules.
var hostilePaths = []struct {
	path     string
	code     fault.Code
	portable bool // only then
}{
	{"", fault.CodePathUnsafe, false},
	{".", fault.CodePathUnsafe, false},
	{"..", fault.CodePathUnsafe, false},
	{"../a", fault.CodePathUnsafe, false},
	{"a/..", fault.CodePathUnsafe, false},
	{"a/../b", fault.CodePathUnsafe, false},
	{"a/../../b", fault.CodePathUnsafe, false},
	{"./a", fault.CodePathUnsafe, false},
	{"a/./b", fault.CodePathUnsafe, false},
	{"a/.", fault.CodePathUnsafe, false},
	{"/", fault.CodePathUnsafe, false},
	{"/etc/passwd", fault.CodePathUnsafe, false},
	{"//host/share", fault.CodePathUnsafe, false},
	{"a//b", fault.CodePathUnsafe, false},
	{"a/", fault.CodePathUnsafe, false},
	{`..\a`, fault.CodePathUnsafe, false},
	{`C:\a`, fault.CodePathUnsafe, false},
	{`\\?\C:\a`, fault.CodePathUnsafe, false},
	{`a\b`, fault.CodePathUnsafe, false},
	{"a\x00", fault.CodePathUnsafe, false},
	{"a\nb", fault.CodePathUnsafe, false},
	{"a\x1b[2J", fault.CodePathUnsafe, false},
	{"a\x7f", fault.CodePathUnsafe, false},
	{"a\u0085", fault.CodePathUnsafe, false},
	{"a\xff", fault.CodePathUnsafe, false},
	{"a\xc0\xae\xc0\xae/b", fault.CodePathUnsafe, false}, // an overlong ".."
	{"\xed\xa0\x80", fault.CodePathUnsafe, false},        // half of a surrogate pair
	{".xfer-0123/journal", fault.CodePathUnsafe, false},
	{"a/.XFER-1/meta", fault.CodePathUnsafe, false},
	{".xf\u200cer-1/meta", fault.CodePathUnsafe, false}, // HFS+ does not see U+200C
	{".xfer-", fault.CodePathUnsafe, false},
	{strings.Repeat("a", MaxComponent+1), fault.CodeTooLarge, false},
	{strings.Repeat("é", MaxComponent/2+1), fault.CodeTooLarge, false}, // bytes, not letters
	{strings.Repeat("a/", MaxDepth) + "a", fault.CodeTooLarge, false},
	{strings.Repeat(strings.Repeat("a", 99)+"/", MaxPath/100) + strings.Repeat("a", 97), fault.CodeTooLarge, false},

	{"C:a", fault.CodePathUnsafe, true},
	{"a:stream", fault.CodePathUnsafe, true},
	{"a<b", fault.CodePathUnsafe, true},
	{"a?", fault.CodePathUnsafe, true},
	{"a*", fault.CodePathUnsafe, true},
	{"a|b", fault.CodePathUnsafe, true},
	{`a"b`, fault.CodePathUnsafe, true},
	{"a>", fault.CodePathUnsafe, true},
	{"a.", fault.CodePathUnsafe, true},
	{"a ", fault.CodePathUnsafe, true},
	{"a /b", fault.CodePathUnsafe, true},
	{"...", fault.CodePathUnsafe, true},
	{".. ", fault.CodePathUnsafe, true},
	{"con", fault.CodePathUnsafe, true},
	{"a/NUL", fault.CodePathUnsafe, true},
	{"nul.txt", fault.CodePathUnsafe, true},
	{"Aux .c", fault.CodePathUnsafe, true},
	{"PRN.tar.gz", fault.CodePathUnsafe, true},
	{"com1", fault.CodePathUnsafe, true},
	{"LPT9.x/a", fault.CodePathUnsafe, true},
	{"COM¹", fault.CodePathUnsafe, true},
	{"CONIN$", fault.CodePathUnsafe, true},
	{"XFER-0~1/journal", fault.CodePathUnsafe, true},
	{"xf3a2b~1", fault.CodePathUnsafe, true},
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

// Claim: transfer.Rules.Portable
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

// Claim: transfer.CodePathUnsafe, transfer.Rules.Symlinks
func TestLinksOnlyLeadInside(t *testing.T) {
	for _, test := range []struct {
		at, target string
		code       fault.Code
	}{
		{"a", "b", ""},
		{"a/b", "../c", ""},
		{"a/b", "..", ""},
		{"a", ".", ""},
		{"a/b/c", "../../d/e", ""},
		{"a", "", fault.CodePathUnsafe},
		{"a", "..", fault.CodePathUnsafe},
		{"a", "../b", fault.CodePathUnsafe},
		{"a/b", "../../c", fault.CodePathUnsafe},
		{"a/b", "../../a/c", fault.CodePathUnsafe}, // by the name of the destination, perhaps
		{"a", "/etc/passwd", fault.CodePathUnsafe},
		{"a", "/", fault.CodePathUnsafe},
		{"a/b/c/x", "up/../../y", fault.CodePathUnsafe}, // up -> ../../.. would make it lead out
		{"a", "b/../c", fault.CodePathUnsafe},
		{"a", "b/", fault.CodePathUnsafe},
		{"a", "./b", fault.CodePathUnsafe},
		{"a", `..\b`, fault.CodePathUnsafe},
		{"a", "b\x00", fault.CodePathUnsafe},
		{"a", "b\xff", fault.CodePathUnsafe},
		{"a", ".xfer-1/journal", fault.CodePathUnsafe},
		{"a", strings.Repeat("b", MaxComponent+1), fault.CodeTooLarge},
		{"a", strings.Repeat("b/", MaxPath) + "b", fault.CodeTooLarge},
	} {
		err := CheckTarget(test.at, test.target, Rules{})
		if test.code == "" {
			require.NoError(t, err, "%q -> %q", test.at, test.target)
			require.NoError(t, check(t, Rules{Symlinks: true}, link(1, test.at, test.target)))
			continue
		}
		requireCode(t, test.code, err, "%q -> %q", test.at, test.target)
	}
	requireCode(t, fault.CodePathUnsafe, CheckTarget("a", "C:b", Rules{Portable: true}))
	requireCode(t, fault.CodePathUnsafe, check(t, Rules{}, link(1, "a", "b")), "links are off")
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
