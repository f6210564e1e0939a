package main

import (
	"bytes"
	"context"
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/ticket"
)

func TestEachFailureOfATransferHasItsExitCode(t *testing.T) {
	here := func(code transfer.Code) error {
		return fmt.Errorf("around: %w", &transfer.Error{Op: "fetch", Code: code})
	}
	there := func(code transfer.Code) error { return &transfer.Error{Op: "push", Code: code, Remote: true} }
	for _, c := range []struct {
		err  error
		code int
		hint string // a part of it
	}{
		{here(transfer.CodeNoSpace), exitNoRoom, "make room"},
		{there(transfer.CodeNoSpace), exitNoRoom, "make room"},
		{here(transfer.CodeDenied), exitLocal, "owner"},
		{there(transfer.CodeDenied), exitRefused, "ask them"},
		{here(transfer.CodePathUnsafe), exitFiles, "rename"},
		{here(transfer.CodeExists), exitFiles, "--overwrite"},
		{there(transfer.CodeExists), exitFiles, "--overwrite"},
		{here(transfer.CodeGone), exitFiles, "missing"},
		{there(transfer.CodeGone), exitFiles, "receiver"},
		{&transfer.Error{Op: "look", Area: transfer.AreaDestination, Code: transfer.CodePathUnsafe}, exitFiles, "destination"},
		{&transfer.Error{Op: "create", Area: transfer.AreaList, Code: transfer.CodePathUnsafe}, exitFiles, "--symlinks"},
		{&transfer.Error{Code: transfer.CodeIO, Err: syscall.EMFILE}, exitLocal, "ulimit"},
		{&transfer.Error{Op: "walk", Area: transfer.AreaSource, Code: transfer.CodeIO, Err: syscall.ENFILE}, exitLocal, "ulimit"},
		{fmt.Errorf("%w: 1 symlink", errLeftOut), exitFiles, "--skip-special"},
		{fmt.Errorf("%w: left out 1 symlink", errNothingLeft), exitFiles, "--skip-special"},
		{&partlyError{1, 2, there(transfer.CodeSourceChanged)}, exitFiles, "new ticket"},
		{here(transfer.CodeSourceChanged), exitFiles, "send again"},
		{there(transfer.CodeSourceChanged), exitFiles, "new ticket"},
		{here(transfer.CodeHashMismatch), exitFiles, "trust"},
		{here(transfer.CodeTooLarge), exitNoRoom, "in parts"},
		{here(transfer.CodeCanceled), exitInterrupted, ""},
		{there(transfer.CodeCanceled), exitUnreachable, "resumes"},
		{here(transfer.CodeProtocol), exitRefused, "update peerlane"},
		{here(transfer.CodeIO), exitLocal, ""},
		{there(transfer.CodeIO), exitHandler, "at the peer's"},
		{here(transfer.CodeBusy), exitLocal, "wait"},
		{there(transfer.CodeBusy), exitNoRoom, "later"},
		{there(transfer.CodeNotFound), exitNotServed, "new one"},
		{here(transfer.CodeStalled), exitTimeout, "to resume"},
		{here(transfer.CodeLost), exitUnreachable, "to resume"},
		{here(transfer.CodeInvalid), exitUsage, ""},
		{there("not_heard_of"), exitHandler, ""},
		{&transfer.Error{Op: "walk", Area: transfer.AreaSource, Code: transfer.CodeIO}, exitLocal, "not there"},
		{&transfer.Error{Op: "walk", Area: transfer.AreaSource, Code: transfer.CodePathUnsafe}, exitFiles, "rename"},
		{&transfer.Error{Op: "walk", Area: transfer.AreaSource, Code: transfer.CodeExists}, exitFiles, "rename"},
		{&transfer.Error{Op: "fetch", Code: transfer.CodeIO, Err: syscall.EFBIG}, exitNoRoom, "folder"},
		{&transfer.Error{Code: transfer.CodeLost, Err: &peerlane.Error{Outcome: session.NotSent, Err: peerlane.ErrNotServed}}, exitNotServed, "neither"},
		{&transfer.Error{Code: transfer.CodeLost, Err: &peerlane.Error{Outcome: session.NotSent, Err: peerlane.ErrUnreachable}}, exitUnreachable, "runs"},
		{&transfer.Error{Code: transfer.CodeLost, Err: &peerlane.Error{Outcome: session.NotSent, Err: context.DeadlineExceeded}}, exitUnreachable, "firewalls"},
		{ticket.ErrDamaged, exitUsage, "plt1"},
		{ticket.ErrVersion, exitUsage, "newer"},
		{ticket.ErrMalformed, exitUsage, "new ticket"},
	} {
		code, hint := explain(c.err)
		require.Equal(t, c.code, code, "%v", c.err)
		require.Contains(t, hint, c.hint, "%v", c.err)
	}
}

func TestEveryCodeIsExplained(t *testing.T) {
	for _, code := range []transfer.Code{
		transfer.CodeNoSpace, transfer.CodeDenied, transfer.CodePathUnsafe, transfer.CodeExists, transfer.CodeSourceChanged,
		transfer.CodeHashMismatch, transfer.CodeTooLarge, transfer.CodeCanceled, transfer.CodeProtocol, transfer.CodeIO, transfer.CodeBusy,
		transfer.CodeNotFound, transfer.CodeStalled, transfer.CodeGone, transfer.CodeLost, transfer.CodeInvalid,
	} {
		require.Contains(t, failures, code)
	}
	require.Len(t, failures, 16)
}

// Send --keep and receive do not end with a transfer, so that no exit code has a hint.
func TestAServerThatRunsOutOfFilesHasAHint(t *testing.T) {
	var b bytes.Buffer
	w := newWatcher(newDisplay(&b), "from")
	w.sayNotYet(outcome{peer: "x", err: &transfer.Error{Op: "receive", Code: transfer.CodeIO, Err: syscall.EMFILE}})
	require.Regexp(t, `^not yet  x: .*too many open files.*\nhint     .*ulimit`, b.String())
	b.Reset()
	w.sayNotYet(outcome{peer: "x", err: &transfer.Error{Op: "receive", Code: transfer.CodeExists}})
	require.NotContains(t, b.String(), "hint")
}
