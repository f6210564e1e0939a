package main

import (
	"errors"
	"syscall"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/internal/advice"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/ticket"
)

// side is the exit code of a failure, and what a person can do about it.
type side struct {
	code int
	hint string
}

// meaning is what a code means on this side, and when the peer says it.
type meaning struct{ here, there side }

const (
	hintGoOn  = "run the same command again to resume"
	hintAgain = "run the same command again"

	hintOutOfFiles = "too many open files: raise the limit, for example with ulimit -n 1024"
)

// isOutOfFiles reports whether this process, or this machine, has too many open files.
func isOutOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// failures are those of transfers.
var failures = map[transfer.Code]meaning{
	transfer.CodeNoSpace: {
		side{exitNoRoom, "make room in the destination, and " + hintAgain},
		side{exitNoRoom, "the receiver has to make room: then " + hintAgain}},
	transfer.CodeDenied: {
		side{exitLocal, "this user may not read or write there: look at the owner and the mode"},
		side{exitRefused, "declined by the peer's user, refused by its disk, or it does not run peerlane receive: ask them"}},
	transfer.CodePathUnsafe: {
		side{exitFiles, "the other side has to rename or leave out what is named above; symlinks need --symlinks"},
		side{exitFiles, "rename or leave out what is named above, or have the receiver move it away if it is in its folder; symlinks need --symlinks there too"}},
	transfer.CodeExists: {
		side{exitFiles, "move away what is there, choose another folder, or allow it with --overwrite: then " + hintAgain},
		side{exitFiles, "something of that name is there at the receiver: it can --overwrite"}},
	transfer.CodeSourceChanged: {
		side{exitFiles, "a file was changed while it was sent: send again when nobody writes to it"},
		side{exitFiles, "the sender's file has changed: it has to send again, with a new ticket"}},
	transfer.CodeHashMismatch: {
		side{exitFiles, "what came is not what was promised, and was thrown away: do not trust that peer, or its disk"},
		side{exitFiles, "the receiver got what does not fit its hash: check this disk and memory"}},
	transfer.CodeTooLarge: {
		side{exitNoRoom, "send it in parts, or as an archive"}, side{exitNoRoom, "send it in parts, or as an archive"}},
	transfer.CodeCanceled: {side{exitInterrupted, ""}, side{exitUnreachable, "the peer stopped it: the same command again resumes, once the peer runs"}},
	transfer.CodeProtocol: {
		side{exitRefused, "the two sides do not understand each other: update peerlane on both"},
		side{exitRefused, "the two sides do not understand each other: update peerlane on both"}},
	transfer.CodeIO: {
		side{exitLocal, "a file is not there, or a disk here failed"}, side{exitHandler, "a disk at the peer's failed, or a limit there: its own messages say more"}},
	transfer.CodeGone: {
		side{exitFiles, "leave received files in place until the transfer has finished; " + hintAgain + " to fetch what is missing"},
		side{exitFiles, "the receiver moved or deleted received files before the transfer finished: " + hintAgain}},
	transfer.CodeBusy: {
		side{exitLocal, "wait until that has ended, or stop it"},
		side{exitNoRoom, "the peer has too much to do, or is receiving the same already: try again later"}},
	transfer.CodeNotFound: {
		side{exitNotServed, "ask for a new ticket"},
		side{exitNotServed, "the sender has ended, or another peer has used the ticket: ask for a new one, which resumes if the files are the same"}},
	transfer.CodeStalled: {
		side{exitTimeout, "nothing came for too long: " + hintGoOn}, side{exitTimeout, "nothing came for too long: " + hintGoOn}},
	transfer.CodeLost: {
		side{exitUnreachable, "check that the peer still runs: " + hintGoOn}, side{exitUnreachable, "check that the peer still runs: " + hintGoOn}},
	transfer.CodeInvalid: {side{exitUsage, ""}, side{exitRefused, ""}},
}

// explainTransfer is explain for errors of transfers.
func explainTransfer(err error) (s side, ok bool) {
	code := transfer.CodeOf(err)
	if code == "" {
		return side{}, false
	}
	var e *transfer.Error
	remote := errors.As(err, &e) && e.Remote
	if below := (*peerlane.Error)(nil); code == transfer.CodeLost && errors.As(err, &below) {
		if isTimeout(err) {
			return side{exitUnreachable, say(advice.NoAnswer)}, true
		}
		if errors.Is(err, peerlane.ErrNotServed) { // there is no --tag to compare
			return side{exitNotServed, "the peer is there, but runs neither peerlane send nor receive"}, true
		}
		for _, v := range verdicts {
			if errors.Is(err, v.err) {
				return side{v.code, v.hint}, true
			}
		}
	}
	var area transfer.Area
	if e != nil {
		area = e.Area
	}
	f, known := failures[code]
	switch {
	case isOutOfFiles(err):
		return side{exitLocal, hintOutOfFiles}, true
	case code == transfer.CodePathUnsafe && area == transfer.AreaDestination: // of what is here
		return side{exitFiles, "move away what is named above in the destination, or choose another folder: then " + hintAgain}, true
	case (code == transfer.CodePathUnsafe || code == transfer.CodeExists) && area == transfer.AreaSource: // of what is to be sent
		return side{exitFiles, "rename or leave out what is named above"}, true
	case code == transfer.CodeIO && errors.Is(err, syscall.EFBIG):
		return side{exitNoRoom, "the file system there, or a limit of this user, takes no file of that size: choose another folder"}, true
	case !known:
		return side{exitHandler, ""}, true
	case remote:
		return f.there, true
	}
	return f.here, true
}

// ticketHint returns what helps against a text that is no ticket.
func ticketHint(err error) (hint string, ok bool) {
	switch {
	case errors.Is(err, ticket.ErrVersion):
		return "the sender's peerlane is newer than this one", true
	case errors.Is(err, ticket.ErrMalformed):
		return "ask for a new ticket, and say what made this one", true
	}
	for _, e := range []error{ticket.ErrNotTicket, ticket.ErrDamaged} {
		if errors.Is(err, e) {
			return "copy all that peerlane send prints after \"ticket\": it begins with plt1", true
		}
	}
	return "", false
}
