package record

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Claim: record.Error.Applied, record.Error.Code, record.Error.Err, record.Error.Name, record.Error.Op, record.Error.Remote
// Claim: record.Error.Text, record.RecordFailure.Applied, record.RecordFailure.Code
func TestErrorSaysWhatItKnows(t *testing.T) {
	for want, e := range map[string]Error{
		`open`:                             {Op: "open"},
		`write "orders": unexpected EOF`:   {Op: "write", Name: "orders", Err: io.ErrUnexpectedEOF},
		`open "a\nb": remote: busy`:        {Op: "open", Name: "a\nb", Remote: true, Code: codeBusy},
		`open: remote: code 256: "no\x00"`: {Op: "open", Remote: true, Code: CodeApplication, Text: "no\x00"},
		`open: "mine"`:                     {Op: "open", Code: 300, Text: "mine"},
		`barrier: remote: done (the peer has applied up to record 7)`: {Op: "barrier", Remote: true, Applied: 7},
		`carry: remote: internal error: "x": out of range`:            {Op: "carry", Remote: true, Code: CodeInternal, Text: "x", Err: ErrRange},
	} {
		require.EqualError(t, &e, want)
	}
	require.EqualError(t, &RecordFailure{FailedSeq: 3, Code: 9, Retryable: true, Message: "\n"},
		`record 3 failed with code 9, and may be sent again: "\n"`)
}

func TestErrorMatchesItsCodeOnlyWhenThePeerSaidIt(t *testing.T) {
	for code, want := range map[Code]error{
		codeDone: ErrPeerClosed, codeProtocol: ErrProtocol, codeVersion: ErrVersion, codeNotAccepted: ErrNotTaken,
		codeHistory: ErrHistory, codeBusy: ErrBusy,
	} {
		require.ErrorIs(t, &Error{Code: code, Remote: true}, want, "%v", code)
		require.NotErrorIs(t, &Error{Code: code}, want, "%v", code)
		require.ErrorIs(t, &Error{Code: code, Remote: true, Err: io.ErrClosedPipe}, io.ErrClosedPipe)
	}
	for _, code := range []Code{CodeStore, CodeSuperseded, CodeInternal, 9, CodeApplication} {
		e := &Error{Code: code, Remote: true}
		for _, other := range []error{ErrStore, ErrSuperseded, ErrNotTaken, ErrProtocol, ErrPeerClosed} {
			require.NotErrorIs(t, e, other, "%v is the peer's trouble", code)
		}
	}
	require.ErrorIs(t, ErrClosed, net.ErrClosed)
	require.ErrorIs(t, ErrPeerClosed, syscall.EPIPE)
}

func TestErrorTellsTimeouts(t *testing.T) {
	for _, test := range []struct {
		err                error
		timeout, temporary bool
	}{
		{nil, false, false}, {io.EOF, false, false}, {os.ErrDeadlineExceeded, true, true}, {context.DeadlineExceeded, true, true},
		{context.Canceled, false, false}, {fmt.Errorf("a: %w", os.ErrDeadlineExceeded), true, true}, {ErrBusy, false, true},
	} {
		var e net.Error = &Error{Err: test.err}
		require.Equal(t, test.timeout, e.Timeout(), "%v", test.err)
		require.Equal(t, test.temporary, e.(*Error).Temporary(), "%v", test.err)
	}
	require.True(t, (&Error{Remote: true, Code: codeBusy}).Temporary())
}

func TestCodesHaveNamesAndReasons(t *testing.T) {
	seen := map[string]bool{}
	for c := range CodeInternal + 1 {
		require.False(t, seen[c.String()], c)
		seen[c.String()] = true
		require.NotContains(t, c.String(), "code ")
	}
	require.Equal(t, "code 9", Code(9).String())
	require.Equal(t, "code 4294967295", Code(1<<32-1).String())
	for err, want := range map[error]Code{
		protocolErrorf("x"): codeProtocol, fmt.Errorf("%w: 2", ErrVersion): codeVersion, ErrHistory: codeHistory, ErrBusy: codeBusy,
		storeError(io.EOF): CodeStore, ErrSuperseded: CodeSuperseded, io.EOF: codeNotAccepted,
		&Error{Code: 300}: 300, &Error{Code: 300, Remote: true}: codeNotAccepted, &Error{Err: ErrBusy}: codeBusy,
		errors.Join(io.EOF, &Error{Code: 301}): 301,
	} {
		require.Equal(t, want, codeOf(err), "%v", err)
	}
}
