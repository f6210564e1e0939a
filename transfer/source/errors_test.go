package source

import (
	"fmt"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

func TestErrorsSayWhatWhereAndWhy(t *testing.T) {
	e := wrap("open", "a\nb", fs.ErrInvalid)
	require.EqualError(t, e, `open "a\nb": invalid argument`)
	require.Equal(t, fault.AreaSource, e.Area)
	require.Equal(t, fault.CodeIO, e.Code)
	require.ErrorIs(t, e, fs.ErrInvalid)
	require.Same(t, e, wrap("read", "c", fmt.Errorf("more: %w", e)))
	require.EqualError(t, wrap("open", "a", fs.ErrPermission), `open "a": this user may not read it: permission denied`)
}

// What is wrong with a name is about a file that is to be sent, under the path that was given.
func TestErrorsOfTheListNameTheGivenPath(t *testing.T) {
	e := wrap("walk", "./x", manifest.CheckPath("../x", manifest.Rules{}))
	require.Equal(t, fault.AreaSource, e.Area)
	require.Equal(t, fault.CodePathUnsafe, e.Code)
	require.Equal(t, "./x", e.Path)
}
