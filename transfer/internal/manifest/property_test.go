package manifest

import (
	"path"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// pathText draws text like that of paths, right or wrong.
var pathText = rapid.StringOfN(rapid.SampledFrom([]rune("ab.../\\A\u00e4\u0308:\x00 ")), 0, 12, -1)

// A path that is accepted names something below the destination, whatever system it is on.
func TestAnAcceptedPathStaysInside(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := pathText.Draw(t, "path")
		portable := rapid.Bool().Draw(t, "portable")
		err := CheckPath(p, Rules{Portable: portable})
		if err != nil {
			require.Contains(t, []fault.Code{fault.CodePathUnsafe, fault.CodeTooLarge}, fault.CodeOf(err))
			var e *fault.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, fault.AreaList, e.Area)
			require.Equal(t, p, e.Path)
			require.NotEmpty(t, e.Text)
			if !portable {
				require.Error(t, CheckPath(p, Rules{Portable: true}), "what no receiver takes, no portable one does")
			}
			return
		}
		require.Equal(t, path.Clean(p), p)
		require.False(t, path.IsAbs(p))
		require.False(t, strings.ContainsFunc(p, unicode.IsControl))
		for name := range strings.SplitSeq(p, "/") {
			require.NotContains(t, []string{"", ".", ".."}, name)
			require.NotContains(t, name, `\`)
			if portable {
				require.NotContains(t, name, ":")
				require.False(t, strings.HasSuffix(name, ".") || strings.HasSuffix(name, " "), "%q", name)
			}
		}
	})
}

// A symlink that is accepted leads to somewhere inside the transfer.
func TestAnAcceptedTargetStaysInside(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom([]string{"a", "a/b", "a/b/c"}).Draw(t, "path")
		target := rapid.StringOfN(rapid.SampledFrom([]rune("ab../")), 0, 12, -1).Draw(t, "target")
		if CheckTarget(p, target, Rules{}) != nil {
			return
		}
		require.False(t, path.IsAbs(target))
		inside := path.Join(path.Dir(p), target)
		require.False(t, inside == ".." || strings.HasPrefix(inside, "../"), "%q leads to %q", p, inside)
		names := strings.Split(target, "/")
		down := slices.IndexFunc(names, func(name string) bool { return name != ".." })
		if down >= 0 {
			require.NotContains(t, names[down:], "..", "up is in front only")
		}
	})
}

// The order is that of the components, and total.
func TestTheOrderIsThatOfTheComponents(t *testing.T) {
	text := rapid.StringMatching(`[ab.-]{1,3}(/[ab.-]{1,3}){0,3}`)
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(text, 3, 3).Draw(t, "paths")
		a, b, c := all[0], all[1], all[2]
		want := slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
		require.Equal(t, want, Compare(a, b), "%q and %q", a, b)
		require.Equal(t, -want, Compare(b, a))
		if Compare(a, b) <= 0 && Compare(b, c) <= 0 {
			require.LessOrEqual(t, Compare(a, c), 0)
		}
		require.Zero(t, Compare(a, a))
		require.Negative(t, Compare(a, a+"/b"), "a folder is before what is in it")
	})
}

// A Checker that has refused an entry refuses all others, with the same error.
func TestAfterARefusalNothingIsAccepted(t *testing.T) {
	c, err := NewChecker(Rules{})
	require.NoError(t, err)
	require.NoError(t, c.Add(Entry{Kind: KindDir, Path: "a"}))
	first := c.Add(Entry{ID: 1, Kind: KindDir, Path: "a"})
	require.Equal(t, fault.CodeExists, fault.CodeOf(first))
	require.Same(t, first, c.Add(Entry{ID: 2, Kind: KindDir, Path: "b"}))
	require.Equal(t, 1, c.Entries())

	_, err = NewChecker(Rules{Bytes: -1})
	require.Equal(t, fault.CodeTooLarge, fault.CodeOf(err))
	require.ErrorContains(t, err, "Rules.Bytes is -1")
}

// The error of an entry names it, cut if it is long, and quoted.
func TestErrorsNameTheEntry(t *testing.T) {
	require.EqualError(t, errorf(fault.CodeExists, "a\nb", "it is sent %s", "twice"), `"a\nb": it is sent twice`)
	require.EqualError(t, unsafef("", "the path is empty"), "the path is empty")
	long := unsafef(strings.Repeat("x", 1000), "no").Error()
	require.Less(t, len(long), 250)
	require.True(t, strings.HasSuffix(long, `"...: no`))
}

func TestKindsHaveNames(t *testing.T) {
	require.Equal(t, "file dir symlink kind 9", strings.Join([]string{KindFile.String(), KindDir.String(), KindSymlink.String(), Kind(9).String()}, " "))
}
