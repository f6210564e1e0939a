package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/peerlane/peerlane/internal/invalid"
	"github.com/peerlane/peerlane/transfer/internal/wire"
	"github.com/peerlane/peerlane/transfer/manifest"
	"github.com/peerlane/peerlane/transfer/source"
	"github.com/peerlane/peerlane/transfer/staging"
)

// A Code is the kind of a failure, for programs and for the peer. The names are stable (spec 2.4).
type Code = manifest.Code

// The codes.
const (
	CodeNoSpace       = staging.CodeNoSpace      // the receiver's disk is full; received data is kept
	CodeDenied        = staging.CodeDenied       // denied by the system, or declined by the user
	CodePathUnsafe    = manifest.CodePathUnsafe  // a name that the receiver does not accept
	CodeExists        = manifest.CodeExists      // the name is already taken at the receiver
	CodeSourceChanged = source.CodeSourceChanged // the sender's file has changed
	CodeHashMismatch  = Code("hash_mismatch")    // data does not match its hash
	CodeTooLarge      = manifest.CodeTooLarge    // over a limit
	CodeCanceled      = Code("canceled")         // this side or the peer has stopped it
	CodeProtocol      = manifest.CodeProtocol    // the peer breaks the protocol
	CodeIO            = staging.CodeIO           // a disk failed
	CodeGone          = staging.CodeGone         // a received file was moved or deleted before the transfer finished
	CodeBusy          = staging.CodeBusy         // temporarily refused: another process receives the same transfer, or there are too many
	CodeNotFound      = Code("not_found")        // the peer has no such transfer, or does not know the token
	CodeStalled       = Code("stalled")          // nothing arrived for too long
	CodeLost          = Code("lost")             // the peer can no longer be reached
	CodeInvalid       = Code("invalid")          // the call has invalid arguments
)

// An Error is the failure of a transfer, or of one of its files.
type Error struct {
	Op     string // "push", "fetch", "receive", "serve"
	Peer   string // the other side, or ""
	Path   string // the file's, or "" for the whole transfer; chosen by the peer, untrusted
	Code   Code
	Remote bool   // reported by the peer
	Text   string // the problem and its remedy; untrusted when Remote
	Err    error  // the cause on this side, if any
}

// Error returns `op "path": text: cause`, without the empty parts.
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

// Unwrap returns the cause, or nil if e is nil.
func (e *Error) Unwrap() error {
	if e == nil {
		return nil
	}
	return e.Err
}

// Is reports whether e is of CodeInvalid, if target is peerlane.ErrInvalid.
func (e *Error) Is(target error) bool {
	return e != nil && target == invalid.Err && e.Code == CodeInvalid
}

// CodeOf returns the code of the first error in err's chain that has one, or "" if there is none.
func CodeOf(err error) Code {
	var ours *Error
	var disk *staging.Error
	var files *source.Error
	var list *manifest.Error
	switch {
	case errors.As(err, &ours) && ours != nil:
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

// invalidf returns the error of a call with invalid arguments. The text names the argument.
func invalidf(format string, args ...any) *Error {
	return &Error{Code: CodeInvalid, Text: fmt.Sprintf(format, args...)}
}

func protocolErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", wire.ErrProtocol, fmt.Errorf(format, args...))
}

// whyOf returns the report of err that the peer receives. It does not reveal details of this side's disk.
func whyOf(err error) wire.Why {
	code := CodeOf(err)
	switch code {
	case CodeProtocol, CodeCanceled, CodePathUnsafe, CodeExists, CodeTooLarge, CodeSourceChanged, CodeHashMismatch:
		return wire.Why{Code: string(code), Text: textOf(err)}
	case CodeGone:
		return wire.Why{Code: string(code), Text: "a received file was moved or deleted before the transfer finished"}
	case CodeNoSpace:
		if ownText(err) != "" { // the transfer had not begun
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

// isTooManyOpen reports whether this process or system can open no more files, so that other files will fail too.
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
		return file.Text // its path is reported separately
	}
	return ""
}

// said returns a failure reported by the peer as an error.
func said(w wire.Why) *Error { return &Error{Code: Code(w.Code), Remote: true, Text: w.Text} }

// mostTexts is how many file failures keep the peer's text. It bounds the memory that a peer can fill.
const mostTexts = 1000

// saidOfFile is said for a file failure that comes after before others.
func saidOfFile(w wire.Why, before int) *Error {
	if before >= mostTexts {
		w.Text = ""
	}
	return said(w)
}

// about returns err as the *Error of an op and a peer. An *Error keeps its other fields.
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
