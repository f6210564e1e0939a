package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// What the peer is told of a failure of this side says nothing of this side's disk.
func TestThePeerLearnsTheCodeAndNothingOfTheDisk(t *testing.T) {
	const secret = "/home/me/secret"
	disk := func(code Code, text string, cause error) error {
		return &Error{Op: "write", Path: "a", Area: AreaDestination, Code: code, Text: text, Err: cause}
	}
	for _, c := range []struct {
		err  error
		code Code
		text string
	}{
		{errors.New(secret), CodeIO, "this side failed"},
		{disk(CodeIO, "", fs.ErrInvalid), CodeIO, "this side failed"},
		{disk(CodeIO, "", syscall.EMFILE), CodeIO, "this side has too many files open"},
		{fmt.Errorf("%s: %w", secret, disk(CodeIO, "", syscall.ENFILE)), CodeIO, "this side has too many files open"},
		{disk(CodeNoSpace, secret, syscall.ENOSPC), CodeNoSpace, "the disk is full; what has come is kept"},
		{&Error{Code: CodeNoSpace, Text: "9 bytes are needed"}, CodeNoSpace, "there is not enough room"},
		{disk(CodeGone, secret, nil), CodeGone, "a received file was moved or deleted before the transfer finished"},
		{disk(CodeBusy, secret, nil), CodeBusy, "another process receives the same transfer"},
		{&Error{Code: CodeBusy, Text: "too many"}, CodeBusy, "too many"},
		{disk(CodeDenied, secret, fs.ErrPermission), CodeDenied, "this side may not write there"},
		{&Error{Code: CodeDenied, Text: "no"}, CodeDenied, "no"},
		{disk(CodeExists, "taken", nil), CodeExists, `write "a": taken`},
		{&Error{Area: AreaList, Path: "a", Code: CodePathUnsafe, Text: "no"}, CodePathUnsafe, `"a": no`},
		{&Error{Area: AreaSource, Op: "read", Path: "a", Code: CodeSourceChanged, Text: "it is gone"}, CodeSourceChanged, "it is gone"},
		{&Error{Code: CodeHashMismatch, Text: "x"}, CodeHashMismatch, "x"},
		{&Error{Code: CodeNotFound, Text: "x"}, CodeNotFound, "x"},
		{&Error{Code: CodeStalled, Text: "x"}, CodeStalled, "x"},
		{&Error{Code: CodeCanceled, Text: "it was stopped"}, CodeCanceled, "it was stopped"},
		{context.Canceled, CodeCanceled, "context canceled"},
		{wire.Breachf("%d lanes", 3), CodeProtocol, "protocol error: 3 lanes"},
		{&Error{Code: CodeLost, Text: secret}, CodeIO, "this side failed"},
		{&Error{Code: "of the application", Text: secret}, CodeIO, "this side failed"},
	} {
		w := whyOf(c.err)
		require.Equal(t, wire.Why{Code: string(c.code), Text: c.text}, w, "%v", c.err)
		again, err := wire.ConsumeWhy(w.Append(nil))
		require.NoError(t, err, "it can be sent")
		require.Equal(t, w, again)
	}
}

func TestWhatThePeerSaysIsRemote(t *testing.T) {
	e := said(wire.Why{Code: "io", Text: "x"})
	require.Equal(t, &Error{Code: CodeIO, Remote: true, Text: "x"}, e)
	require.True(t, isSaid(fmt.Errorf("around: %w", e)))
	require.False(t, isSaid(&Error{Code: CodeIO}))
	require.False(t, isSaid(fs.ErrInvalid))
	require.Equal(t, "x", saidOfFile(wire.Why{Code: "io", Text: "x"}, mostTexts-1).Text)
	require.Empty(t, saidOfFile(wire.Why{Code: "io", Text: "x"}, mostTexts).Text, "a peer fills no memory with them")
}

func TestARefusalKeepsTheTextOfAnErrorAlone(t *testing.T) {
	for want, err := range map[string]error{
		"the peer does not take it": errors.New("my disk is full"),
		"not today":                 fmt.Errorf("around: %w", &Error{Code: CodeIO, Path: "/home", Text: "not today"}),
	} {
		var e *Error
		require.ErrorAs(t, refusal(err), &e)
		require.Equal(t, CodeDenied, e.Code)
		require.Equal(t, want, e.Text)
		require.ErrorIs(t, e, err)
		require.Equal(t, wire.Why{Code: "denied", Text: want}, whyOf(e))
	}
	require.Equal(t, CodeDenied, CodeOf(refusal(nil)))
}

func TestOnlySomeFailuresAreWorthAnotherAttempt(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{errors.New("connection refused"), true},
		{&Error{Code: CodeLost}, true},
		{&Error{Code: CodeStalled}, true},
		{said(wire.Why{Code: "busy"}), true},
		{&Error{Code: CodeBusy}, false},
		{said(wire.Why{Code: "stalled"}), true},
		{said(wire.Why{Code: "denied"}), false},
		{&Error{Code: CodeNoSpace}, false},
		{&Error{Code: CodeProtocol}, false},
		{context.Canceled, false},
	} {
		require.Equal(t, c.want, again(c.err), "%v", c.err)
	}
}

func TestTheErrorOfAFetchNamesAllItsSources(t *testing.T) {
	first, second := &Error{Code: CodeDenied, Text: "no"}, errors.New("not there")
	require.Same(t, first, allFailed([]error{first}), "an only one speaks for itself")
	err := allFailed([]error{first, second})
	require.Equal(t, CodeDenied, CodeOf(err))
	require.ErrorIs(t, err, second)
	require.ErrorContains(t, err, "no source is left")
	require.Equal(t, CodeLost, CodeOf(allFailed([]error{second, first})), "the first one counts")
}

func TestOutcomesReportWhenAllHaveFailed(t *testing.T) {
	no := errors.New("no")
	for _, failures := range []int{0, 1, 2, 3} {
		all := newOutcomes(3)
		reports := make(chan error, 3)
		for i := range 3 {
			all.Go(func() error {
				if i < failures {
					return no
				}
				return nil
			}, func(err error) { reports <- err })
		}
		all.Wait()
		close(reports)
		if failures < 3 {
			require.Empty(t, reports, "%d failures", failures)
			continue
		}
		require.ErrorIs(t, <-reports, no)
		require.Empty(t, reports, "once")
	}
}

func TestTheFirstFilesThatAreStuckAreNamed(t *testing.T) {
	errs := make([]error, mostStuck+3)
	for i := range errs {
		errs[i] = &Error{Path: fmt.Sprint(i), Area: AreaDestination, Code: CodeExists, Text: "it is taken"}
	}
	err := firstOf(errs)
	require.Equal(t, CodeExists, CodeOf(err))
	require.ErrorContains(t, err, `"4": it is taken`)
	require.NotContains(t, err.Error(), `"5"`)
	require.ErrorContains(t, err, "and 3 more files like these")
	require.NotContains(t, firstOf(errs[:2]).Error(), "more")
	require.Len(t, errs, mostStuck+3, "the list is not changed")
	require.Equal(t, "5", errs[5].(*Error).Path) //nolint:errorlint // it is what was put there
}
