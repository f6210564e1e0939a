package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/peerlane/peerlane/transfer/internal/wire"
	"github.com/peerlane/peerlane/transfer/manifest"
	"github.com/peerlane/peerlane/transfer/source"
	"github.com/peerlane/peerlane/transfer/staging"
)

// A Code says what kind of failure it is, to programs and to the peer. The names are stable (spec 2.4).
type Code = manifest.Code

// The codes.
const (
	CodeNoSpace       = staging.CodeNoSpace      // the receiver's disk is full: what has come is kept
	CodeDenied        = staging.CodeDenied       // the system, or the peer's person, does not let this happen
	CodePathUnsafe    = manifest.CodePathUnsafe  // a name that the receiver does not take
	CodeExists        = manifest.CodeExists      // something else has that name at the receiver
	CodeSourceChanged = source.CodeSourceChanged // the sender's file is not what it was
	CodeHashMismatch  = Code("hash_mismatch")    // what came is not what was said
	CodeTooLarge      = manifest.CodeTooLarge    // over a limit
	CodeCanceled      = Code("canceled")         // this side, or the peer, has stopped it
	CodeProtocol      = manifest.CodeProtocol    // the peer breaks the protocol
	CodeIO            = staging.CodeIO           // a disk failed
	CodeGone          = staging.CodeGone         // a received file was moved or deleted before the transfer finished
	CodeBusy          = staging.CodeBusy         // not now: another process receives the same, or too much is going on; later may do
	CodeNotFound      = Code("not_found")        // the peer has no such transfer, or does not know the token
	CodeStalled       = Code("stalled")          // nothing came for too long
	CodeLost          = Code("lost")             // the peer cannot be reached any more
	CodeInvalid       = Code("invalid")          // the call itself is wrong
)

// An Error says why a transfer, or one file of it, failed.
type Error struct {
	Op     string // "push", "fetch", "receive", "serve"
	Peer   string // whom with, or ""
	Path   string // the file's, or "" if it is of the whole transfer: of the peer's choosing, not to be trusted
	Code   Code
	Remote bool   // the peer said so
	Text   string // what is wrong and what helps; untrusted when Remote
	Err    error  // the cause on this side, if any
}

// Error returns `op "path": text: cause`, leaving out what is empty.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Path != "" {
		fmt.Fprintf(&b, " %q", e.Path)
	}
	if e.Remote {
		fmt.Fprintf(&b, ": the peer says %q", e.Text)
	} else if e.Text != "" {
		b.WriteString(": " + e.Text)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.Code != "" {
		fmt.Fprintf(&b, " (%s)", e.Code)
	}
	return strings.TrimPrefix(b.String(), ": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the first error in err's chain that has one, or "" if there is none.
func CodeOf(err error) Code {
	var ours *Error
	var disk *staging.Error
	var files *source.Error
	var list *manifest.Error
	switch {
	case errors.As(err, &ours):
		return ours.Code
	case errors.As(err, &disk):
		return disk.Code
	case errors.As(err, &files):
		return files.Code
	case errors.As(err, &list):
		return list.Code
	case errors.Is(err, wire.ErrProtocol):
		return CodeProtocol
	case errors.Is(err, context.Canceled):
		return CodeCanceled
	}
	return ""
}

// invalidf returns the error of a call that is wrong itself; the text names the argument.
func invalidf(format string, args ...any) *Error {
	return &Error{Code: CodeInvalid, Text: fmt.Sprintf(format, args...)}
}

func protocolErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", wire.ErrProtocol, fmt.Errorf(format, args...))
}

// whyOf returns what the peer is told about err. What is on this side's disk is not its business.
func whyOf(err error) wire.Why {
	code := CodeOf(err)
	switch code {
	case CodeProtocol, CodeCanceled, CodePathUnsafe, CodeExists, CodeTooLarge, CodeSourceChanged, CodeHashMismatch:
		return wire.Why{Code: string(code), Text: textOf(err)}
	case CodeGone:
		return wire.Why{Code: string(code), Text: "a received file was moved or deleted before the transfer finished"}
	case CodeNoSpace:
		if ownText(err) != "" { // of a transfer that was not begun
			return wire.Why{Code: string(code), Text: "there is not enough room"}
		}
		return wire.Why{Code: string(code), Text: "the disk is full; what has come is kept"}
	case CodeIO:
		if isTooManyOpen(err) {
			return wire.Why{Code: string(code), Text: "this side has too many files open"}
		}
	case CodeBusy:
		return wire.Why{Code: string(code), Text: cmp.Or(ownText(err), "another process receives the same transfer")}
	case CodeDenied:
		return wire.Why{Code: string(code), Text: cmp.Or(ownText(err), "this side may not write there")}
	case CodeNotFound, CodeStalled:
		return wire.Why{Code: string(code), Text: ownText(err)}
	}
	return wire.Why{Code: string(CodeIO), Text: "this side failed"}
}

// isTooManyOpen reports that this process, or system, can open no further file: another file fails with it too.
func isTooManyOpen(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// textOf returns err's text, without the code that Error adds.
func textOf(err error) string {
	if text := ownText(err); text != "" {
		return text
	}
	return err.Error()
}

// ownText returns the Text of the Error that err is, or "".
func ownText(err error) string {
	var e *Error
	var file *source.Error
	switch {
	case errors.As(err, &e):
		return e.Text
	case errors.As(err, &file) && file.Err == nil:
		return file.Text // whose path is said beside it
	}
	return ""
}

// said returns the error that the peer's words are.
func said(w wire.Why) *Error { return &Error{Code: Code(w.Code), Remote: true, Text: w.Text} }

// mostTexts is how many files' failures are kept with the peer's words: what a peer can fill memory with is bounded, and nobody reads on.
const mostTexts = 1000

// saidOfFile is said of one more file, after so many.
func saidOfFile(w wire.Why, before int) *Error {
	if before >= mostTexts {
		w.Text = ""
	}
	return said(w)
}

// about returns err as the *Error of an op and a peer. One that is an *Error keeps what it says.
func about(op, peer string, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		c := *e
		if c.Op == "" {
			c.Op = op
		}
		if c.Peer == "" {
			c.Peer = peer
		}
		return &c
	}
	code := CodeOf(err)
	if code == "" {
		code = CodeLost
	}
	return &Error{Op: op, Peer: peer, Code: code, Err: err}
}
