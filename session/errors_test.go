package session

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
)

// Claim: session.Error.Code, session.Error.Err, session.Error.Op, session.Error.Outcome, session.Error.Peer
func TestEveryCodeMatchesItsSentinel(t *testing.T) {
	for code, sentinel := range codeErrors {
		require.ErrorIs(t, &Error{Code: code}, sentinel, "%v", code)
	}
	e := &Error{Op: "send", Peer: "bob", Link: "a\"b", Remote: true, Code: codes.Unavailable, Outcome: Rejected,
		RetryAfter: time.Second, Text: "full\n", Err: io.EOF}
	require.Equal(t, `send "a\"b" at bob: remote: unavailable: "full\n": retry after 1s: EOF (rejected)`, e.Error())
	require.ErrorIs(t, e, io.EOF)
	require.True(t, e.Temporary())
	require.False(t, e.Timeout())
	require.True(t, (&Error{Err: os.ErrDeadlineExceeded}).Timeout())
	require.ErrorIs(t, ErrClosed, net.ErrClosed)
	require.Equal(t, "outcome 9", Outcome(9).String())
	for o, name := range map[Outcome]string{Unknown: "unknown", NotSent: "not sent", Delivered: "delivered", Rejected: "rejected"} {
		require.Equal(t, name, o.String())
	}
}

// An error of an error says once what a caller may believe, unless the two differ.
func TestANestedErrorSaysItsOutcomeOnce(t *testing.T) {
	inner := &Error{Op: "stream", Link: "x", Code: codes.Timeout, Err: ErrSessionLost}
	require.Equal(t, `stream "x": timeout: session lost (unknown)`, inner.Error())
	require.Equal(t, "hello at bob: timeout", (&Error{Op: "hello", Peer: "bob", Code: codes.Timeout}).Error(), "there was no work")
	require.Equal(t, `not allowed: "for Alice alone"`, (&Error{Code: codes.NotAllowed, Text: "for Alice alone"}).Error(), "a program's own")
	full := errors.New("full")
	require.Equal(t, `open: not allowed: "full"`, (&Error{Op: "open", Code: codes.NotAllowed, Text: "full", Err: full}).Error(), "the text is the cause's")
	require.Equal(t, "hello (rejected)", (&Error{Op: "hello", Outcome: Rejected}).Error())
	outer := &Error{Op: "close", Peer: "bob", Err: inner}
	require.Equal(t, `close at bob: stream "x": timeout: session lost (unknown)`, outer.Error())
	outer.Err = errors.Join(&Error{Op: "send", Outcome: Rejected}, inner)
	require.Equal(t, "close at bob: send (rejected)\nstream \"x\": timeout: session lost (unknown)", outer.Error())
	outer.Outcome = NotSent
	require.Equal(t, "close at bob: send (rejected)\nstream \"x\": timeout: session lost (unknown) (not sent)", outer.Error())
}

func TestEqualErrorsOfACloseAreListedOnce(t *testing.T) {
	one, other := &Error{Op: "send", Link: "x"}, &Error{Op: "send", Link: "y"}
	all := &lostErrors{[]error{one, other, &Error{Op: "send", Link: "x"}, one}}
	require.Equal(t, "3 times: send \"x\" (unknown)\nsend \"y\" (unknown)", all.Error())
	require.Len(t, all.Unwrap(), 4)
	require.ErrorIs(t, all, other)
}

func TestACarriersOwnCodeSurvivesTheLoss(t *testing.T) {
	s := &Session{peer: "bob"}
	err := s.lost("read", &net.OpError{Op: "read", Err: &Error{Code: codes.Unavailable}})
	require.ErrorIs(t, err, ErrSessionLost)
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorIs(t, s.lost("read", io.EOF), io.ErrUnexpectedEOF)
	var e *Error
	require.True(t, errors.As(err, &e))
	require.Equal(t, Unknown, e.Outcome)
}
