package transfer

import (
	"cmp"
	"errors"
	"fmt"
	"syscall"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// An Error is the failure of a transfer, or of one of its files. The errors of package source are of this type too.
//
//	Op     string // "push", "fetch", "receive", "serve"; of a disk "walk", "read", "write", "publish" and so on
//	Peer   string // the other side, or ""
//	Path   string // the file's, or "" for the whole transfer; chosen by the peer, untrusted
//	Area   Area   // what on this side it is about, or ""
//	Code   Code
//	Remote bool   // reported by the peer
//	Text   string // the problem and its remedy; untrusted when Remote
//	Err    error  // the cause on this side, if any
//
// An Error with CodeInvalid matches peerlane.ErrInvalid.
type Error = fault.Error

// A Code is the kind of a failure, for programs and for the peer. The names are stable (spec 2.4).
type Code = fault.Code

// The codes.
const (
	CodeNoSpace       = fault.CodeNoSpace       // the receiver's disk is full; received data is kept
	CodeDenied        = fault.CodeDenied        // denied by the system, or declined by the user
	CodePathUnsafe    = fault.CodePathUnsafe    // a name that the receiver does not accept
	CodeExists        = fault.CodeExists        // the name is already taken at the receiver
	CodeSourceChanged = fault.CodeSourceChanged // the sender's file has changed
	CodeHashMismatch  = fault.CodeHashMismatch  // data does not match its hash
	CodeTooLarge      = fault.CodeTooLarge      // over a limit
	CodeCanceled      = fault.CodeCanceled      // this side or the peer has stopped it
	CodeProtocol      = fault.CodeProtocol      // the peer breaks the protocol
	CodeIO            = fault.CodeIO            // a disk failed
	CodeGone          = fault.CodeGone          // a received file was moved or deleted before the transfer finished
	CodeBusy          = fault.CodeBusy          // temporarily refused: another process receives the same transfer, or there are too many
	CodeNotFound      = fault.CodeNotFound      // the peer has no such transfer, or does not know the token
	CodeStalled       = fault.CodeStalled       // nothing arrived for too long
	CodeLost          = fault.CodeLost          // the peer can no longer be reached
	CodeInvalid       = fault.CodeInvalid       // the call has invalid arguments
)

// An Area is what an Error is about, if that is not the conversation of the two sides.
type Area = fault.Area

// The areas.
const (
	AreaList        = fault.AreaList        // the list of files: a name, a size, the order
	AreaSource      = fault.AreaSource      // the files to send, on this disk
	AreaDestination = fault.AreaDestination // the folder that receives, and its disk
	AreaProtocol    = fault.AreaProtocol    // bytes that a correct peer does not send
)

// CodeOf returns the code of the first *Error in err's chain, CodeCanceled for a canceled context, or "".
func CodeOf(err error) Code { return fault.CodeOf(err) }

// invalidf returns the error of a call with invalid arguments. The text names the argument.
func invalidf(format string, args ...any) *Error {
	return &Error{Code: CodeInvalid, Text: fmt.Sprintf(format, args...)}
}

// whyOf returns the report of err that the peer receives. It does not reveal details of this side's disk.
func whyOf(err error) wire.Why {
	code := CodeOf(err)
	switch code {
	case CodeProtocol, CodeCanceled, CodePathUnsafe, CodeExists, CodeTooLarge, CodeSourceChanged, CodeHashMismatch:
		return wire.Why{Code: string(code), Text: cmp.Or(fault.Own(err), err.Error())}
	case CodeGone:
		return wire.Why{Code: string(code), Text: "a received file was moved or deleted before the transfer finished"}
	case CodeNoSpace:
		if fault.Own(err) != "" { // the transfer had not begun
			return wire.Why{Code: string(code), Text: "there is not enough room"}
		}
		return wire.Why{Code: string(code), Text: "the disk is full; what has come is kept"}
	case CodeIO:
		if isTooManyOpen(err) {
			return wire.Why{Code: string(code), Text: "this side has too many files open"}
		}
	case CodeBusy:
		return wire.Why{Code: string(code), Text: cmp.Or(fault.Own(err), "another process receives the same transfer")}
	case CodeDenied:
		return wire.Why{Code: string(code), Text: cmp.Or(fault.Own(err), "this side may not write there")}
	case CodeNotFound, CodeStalled:
		return wire.Why{Code: string(code), Text: fault.Own(err)}
	}
	return wire.Why{Code: string(CodeIO), Text: "this side failed"}
}

// isTooManyOpen reports whether this process or system can open no more files, so that other files will fail too.
func isTooManyOpen(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
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
