package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/invalid"
)

func TestErrorsSayWhatWhereAndWhy(t *testing.T) {
	long := strings.Repeat("x", longestPath+1)
	for want, e := range map[string]*Error{
		"walk":                                  {Op: "walk"},
		`"a": text`:                             {Path: "a", Text: "text"},
		`open "a\nb": text: invalid argument`:   {Op: "open", Path: "a\nb", Area: AreaSource, Code: CodeIO, Text: "text", Err: fs.ErrInvalid},
		"push: it was stopped (canceled)":       {Op: "push", Code: CodeCanceled, Text: "it was stopped"},
		`send "a": the peer says "no" (denied)`: {Op: "send", Path: "a", Code: CodeDenied, Remote: true, Text: "no"},
		`"` + long[1:] + `"...: text`:           {Path: long, Area: AreaList, Code: CodeTooLarge, Text: "text"},
		`"` + long + `": text`:                  {Path: long, Area: AreaDestination, Code: CodeIO, Text: "text"},
		`fetch: write "a": the disk is full (no_space)`: {Op: "fetch", Area: AreaDestination, Code: CodeNoSpace,
			Err: &Error{Op: "write", Path: "a", Area: AreaDestination, Code: CodeNoSpace, Text: "the disk is full"}},
	} {
		require.EqualError(t, e, want)
	}
}

func TestErrorsAreMatched(t *testing.T) {
	e := &Error{Code: CodeInvalid, Err: fs.ErrInvalid}
	require.ErrorIs(t, e, fs.ErrInvalid)
	require.ErrorIs(t, e, invalid.Err)
	require.NotErrorIs(t, &Error{Code: CodeIO}, invalid.Err)
	require.Nil(t, (*Error)(nil).Unwrap())
	require.False(t, (*Error)(nil).Is(invalid.Err))
}

func TestCodeOfIsThatOfTheFirstError(t *testing.T) {
	inner := &Error{Code: CodeIO}
	for _, c := range []struct {
		err  error
		want Code
	}{
		{nil, ""},
		{errors.New("x"), ""},
		{(*Error)(nil), ""},
		{inner, CodeIO},
		{fmt.Errorf("around: %w", inner), CodeIO},
		{&Error{Code: CodeLost, Err: inner}, CodeLost},
		{errors.Join(errors.New("x"), inner, &Error{Code: CodeLost}), CodeIO},
		{fmt.Errorf("around: %w", context.Canceled), CodeCanceled},
		{&Error{Code: CodeLost, Err: context.Canceled}, CodeLost},
	} {
		require.Equal(t, c.want, CodeOf(c.err), "%v", c.err)
	}
}

// Claim: transfer.Error.Area
func TestAboutNamesTheTransfer(t *testing.T) {
	plain := About("push", "bob", fs.ErrClosed)
	require.Equal(t, &Error{Op: "push", Peer: "bob", Code: CodeLost, Err: fs.ErrClosed}, plain)
	require.Equal(t, plain, About("fetch", "alice", fmt.Errorf("more: %w", plain)), "it is one of a transfer already")
	require.Equal(t, CodeCanceled, About("push", "", context.Canceled).Code)

	bare := &Error{Code: CodeStalled, Text: "x"}
	require.Equal(t, &Error{Op: "push", Peer: "bob", Code: CodeStalled, Text: "x"}, About("push", "bob", bare))
	require.Empty(t, bare.Op)

	disk := &Error{Op: "write", Path: "a", Area: AreaDestination, Code: CodeDenied, Text: "x"}
	about := About("fetch", "bob", fmt.Errorf("alice: %w", disk))
	require.Equal(t, AreaDestination, about.Area)
	require.Equal(t, CodeDenied, about.Code)
	require.EqualError(t, about, `fetch: alice: write "a": x (denied)`)
	require.Equal(t, about, About("receive", "", about))
	require.Equal(t, CodeLost, About("fetch", "", &Error{Area: AreaSource}).Code)
}

func TestOwnIsTheTextThatSaysItAll(t *testing.T) {
	require.Empty(t, Own(fs.ErrClosed))
	require.Empty(t, Own((*Error)(nil)))
	require.Equal(t, "x", Own(fmt.Errorf("more: %w", &Error{Code: CodeBusy, Text: "x"})))
	require.Equal(t, "x", Own(&Error{Area: AreaSource, Code: CodeSourceChanged, Path: "a", Text: "x"}), "its path is reported separately")
	require.Empty(t, Own(&Error{Area: AreaSource, Code: CodeDenied, Text: "x", Err: fs.ErrPermission}))
	require.Empty(t, Own(&Error{Area: AreaDestination, Code: CodeExists, Text: "x"}))
	require.Empty(t, Own(&Error{Area: AreaList, Code: CodeExists, Text: "x"}))
}
