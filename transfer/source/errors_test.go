package source

import (
	"fmt"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"
)

// Claim: source.Error.Code, source.Error.Err, source.Error.Op, source.Error.Path, source.Error.Text
func TestErrorsSayWhatWhereAndWhy(t *testing.T) {
	e := &Error{Op: "open", Path: "a\nb", Code: CodeIO, Text: "text", Err: fs.ErrInvalid}
	require.EqualError(t, e, `open "a\nb": text: invalid argument`)
	require.ErrorIs(t, e, fs.ErrInvalid)
	require.EqualError(t, &Error{Op: "walk"}, "walk")
	require.Same(t, e, wrap("read", "c", fmt.Errorf("more: %w", e)))
}
