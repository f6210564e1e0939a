package main

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"

	"github.com/libp2p/go-libp2p/core/routing"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/internal/advice"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/node/dht"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
)

// The exit codes. The description in main.go lists them.
const (
	exitLocal       = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitNotServed   = 4
	exitRefused     = 5
	exitTimeout     = 6
	exitHandler     = 7
	exitNoRoom      = 8
	exitUnknown     = 9
	exitFiles       = 10
	exitInterrupted = 130
)

// errUsage: the flags contradict each other.
var errUsage = errors.New("wrong usage")

// verdict is the exit code of the errors that match err, and what a person can do about them.
type verdict struct {
	err  error
	code int
	hint string
}

// verdicts are tried in order: the first that matches decides.
var verdicts = []verdict{
	{errUsage, exitUsage, "peerlane COMMAND --help lists the flags"},
	{errFailed, exitLocal, ""},
	{errNoFolder, exitLocal, "name the folder that holds the received files"},
	{errLeftOut, exitFiles, "the rest has arrived; use --skip-special if this is intended, or --symlinks to send symlinks"},
	{errNothingLeft, exitFiles, "nothing was sent; use --skip-special if this is intended"},
	{errNoHelper, exitUnreachable, "check this machine's way to the internet, that the helpers run, and their addresses"},
	{errInterrupted, exitInterrupted, ""},
	{node.ErrKeyExposed, exitLocal, ""},
	{node.ErrKeyFormat, exitLocal, ""},
	{node.ErrInvalid, exitUsage, ""},
	{peerlane.ErrInvalid, exitUsage, ""},
	{context.Canceled, exitInterrupted, ""},
	{peerlane.ErrPSKMismatch, exitRefused, say(advice.PSKMismatch)},
	{peerlane.ErrPSKRequired, exitRefused, say(advice.PSKRequired)},
	{peerlane.ErrLegacyPeer, exitRefused, say(advice.OldPeer)},
	{peerlane.ErrPSKTampered, exitRefused, say(advice.PSKTampered)},
	{peerlane.ErrPSKReplayed, exitRefused, say(advice.PSKReplayed)},
	{peerlane.ErrNotAllowed, exitRefused, say(advice.NotAllowed)},
	{peerlane.ErrNotServed, exitNotServed, say(advice.NotServed)},
	{peerlane.ErrRelayOnly, exitUnreachable, say(advice.RelayOnly)},
	{dht.ErrUnknownPeer, exitUnreachable, say(advice.NoAddress)},
	{routing.ErrNotFound, exitUnreachable, "it was looked for in the local network: if it is elsewhere, give an address that it prints, or --dht on both sides; if it is here, check that it runs, and firewalls (UDP port 5353)"},
	{peerlane.ErrUnreachable, exitUnreachable, say(advice.Unreachable)},
	{peerlane.ErrTooLarge, exitNoRoom, "send less in one call"},
	{peerlane.ErrUnavailable, exitNoRoom, say(advice.PeerFull)},
	{peerlane.ErrGoingAway, exitNoRoom, say(advice.GoingAway)},
}

// hintUnknown is for a call of which nobody knows whether it ran.
const hintUnknown = "the call may have run at the peer: find out before trying again"

// hintPing is for a session whose peer no longer answers.
const hintPing = "the peer was there and no longer answers: check that it runs, and the network between"

// explain returns the exit code for err, and what a person can do about it.
func explain(err error) (code int, hint string) {
	if e, ok := errors.AsType[*notReached](err); ok {
		code, _ = explain(e.why.Unwrap())
		return code, "" // it was printed
	}
	if errors.Is(err, errNoRelay) {
		return exitUnreachable, reserveHint(err)
	}
	if hint, ok := pathHint(err); ok {
		return exitUnreachable, hint
	}
	if hint, ok := ticketHint(err); ok {
		return exitUsage, hint
	}
	if errors.Is(err, errHidden) {
		return exitFiles, "--hidden accepts such names, if you expect them: other programs may obey what is in them"
	}
	if s, ok := explainTransfer(err); ok {
		return s.code, s.hint
	}
	if _, ok := errors.AsType[*pingError](err); ok && !errors.Is(err, context.Canceled) {
		if isTimeout(err) {
			return exitTimeout, hintPing
		}
		return exitUnreachable, hintPing
	}
	e, isTyped := errors.AsType[*peerlane.Error](err)
	sent := isTyped && e.Outcome == session.Unknown // and so it may have run, whatever the error
	switch timeout := isTimeout(err); {
	case timeout && sent:
		return exitTimeout, hintUnknown
	case timeout && isTyped && e.Outcome == session.NotSent:
		return exitUnreachable, say(advice.NoAnswer)
	case timeout:
		return exitTimeout, "give more time with --timeout"
	case sent:
		return exitUnknown, hintUnknown
	}
	for _, v := range verdicts {
		if errors.Is(err, v.err) {
			return v.code, v.hint
		}
	}
	if !isTyped {
		return exitLocal, ""
	}
	switch e.Outcome {
	case session.Delivered:
		return exitHandler, ""
	case session.NotSent:
		return exitUnreachable, "nothing was sent: trying again is safe"
	}
	return exitRefused, ""
}

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// oneLine returns the chain of causes of err on one line. The target's Peer ID, which libp2p and the floors above it name
// again and again, is "the peer", except where another one is named beside it.
func oneLine(err error) string {
	var e *peerlane.Error
	text := err.Error()
	if dial, ok := errors.AsType[*net.OpError](err); ok {
		text = strings.Replace(text, dial.Error(), dial.Err.Error(), 1)
	}
	if errors.As(err, &e) && e.Peer != "" && strings.Count(text, " "+e.Peer) > 0 && !isMismatch(err) {
		text = strings.ReplaceAll(text, e.Peer, "the peer")
	}
	if e != nil && transfer.CodeOf(err) == transfer.CodeLost {
		text = strings.TrimSuffix(text, " ("+string(transfer.CodeLost)+")") // the outcome of e is more exact
	}
	text = strings.ReplaceAll(text, "failed to dial: failed to dial the peer: ", "") // libp2p's, before its "all dials failed"
	return strings.Join(strings.Fields(strings.ReplaceAll(text, "\n  * ", " ")), " ")
}
