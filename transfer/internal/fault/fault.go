// Package fault has the error type of package transfer, which the packages that transfer builds on return too. It does no I/O.
package fault

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/peerlane/peerlane/internal/invalid"
)

// A Code is the kind of a failure, for programs and for the peer. The names are stable (transfer spec 2.4).
type Code string

// The codes.
const (
	CodeNoSpace       Code = "no_space"       // the receiver's disk is full; received data is kept
	CodeDenied        Code = "denied"         // denied by the system, or declined by the user
	CodePathUnsafe    Code = "path_unsafe"    // a path or a symlink's target that is not accepted
	CodeExists        Code = "exists"         // the name is already taken
	CodeSourceChanged Code = "source_changed" // the sender's file has changed
	CodeHashMismatch  Code = "hash_mismatch"  // data does not match its hash
	CodeTooLarge      Code = "too_large"      // over a limit
	CodeCanceled      Code = "canceled"       // this side or the peer has stopped it
	CodeProtocol      Code = "protocol"       // the peer breaks the protocol, or a call its contract
	CodeIO            Code = "io"             // a disk failed, or there is no such file
	CodeGone          Code = "gone"           // a received file was moved or deleted before the transfer finished
	CodeBusy          Code = "busy"           // temporarily refused: another process has the transfer, or there are too many
	CodeNotFound      Code = "not_found"      // the peer has no such transfer, or does not know the token
	CodeStalled       Code = "stalled"        // nothing arrived for too long
	CodeLost          Code = "lost"           // the peer can no longer be reached
	CodeInvalid       Code = "invalid"        // the call has invalid arguments

	CodeNoState Code = "no_state" // there is no stored transfer to resume; never sent
)

// An Area is what an error is about, if that is not the conversation of the two sides.
type Area string

// The areas.
const (
	AreaList        Area = "list"        // the list of files: a name, a size, the order
	AreaSource      Area = "source"      // the files to send, on the sender's disk
	AreaDestination Area = "destination" // the folder that receives, and its disk
	AreaProtocol    Area = "protocol"    // bytes that a correct peer does not send
)

// An Error is the failure of a transfer, or of one of its files.
type Error struct {
	Op     string // "push", "fetch", "receive", "serve"; of a disk "walk", "read", "write", "publish" and so on
	Peer   string // the other side, or ""
	Path   string // the file's, or "" for the whole transfer; chosen by the peer, untrusted
	Area   Area   // what on this side it is about, or ""
	Code   Code
	Remote bool   // reported by the peer
	Text   string // the problem and its remedy; untrusted when Remote
	Err    error  // the cause on this side, if any
}

// longestPath is how many bytes an error shows of a path in the list of files, which may have come from a peer.
const longestPath = 200

// Error returns `op "path": text: cause (code)`, without the empty parts. Only the error of a transfer shows its code.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Path != "" {
		if e.Op != "" {
			b.WriteByte(' ')
		}
		if e.Area == AreaList && len(e.Path) > longestPath {
			b.WriteString(strconv.Quote(e.Path[:longestPath]) + "...")
		} else {
			b.WriteString(strconv.Quote(e.Path))
		}
	}
	part := func(s string) {
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(s)
	}
	if e.Remote {
		part(fmt.Sprintf("the peer says %q", e.Text))
	} else if e.Text != "" {
		part(e.Text)
	}
	if e.Err != nil {
		part(e.Err.Error())
	}
	if e.Code != "" && !e.isCause() {
		fmt.Fprintf(&b, " (%s)", e.Code)
	}
	return b.String()
}

// isCause reports whether e was made below package transfer: it has an Area, and no *Error of that Area as its cause.
func (e *Error) isCause() bool { return e.Area != "" && !errors.As(e.Err, new(*Error)) }

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

// CodeOf returns the code of the first *Error in err's chain, CodeCanceled for a canceled context, or "".
func CodeOf(err error) Code {
	if e := (*Error)(nil); errors.As(err, &e) && e != nil {
		return e.Code
	}
	if errors.Is(err, context.Canceled) {
		return CodeCanceled
	}
	return ""
}

// About returns err as the *Error of a transfer's op and peer. The *Error of a transfer keeps its other fields. Any other error becomes the
// cause, with its Code and Area; without a Code it is CodeLost.
func About(op, peer string, err error) *Error {
	e := (*Error)(nil)
	if !errors.As(err, &e) || e == nil {
		e = &Error{Code: CodeOf(err)}
	} else if !e.isCause() {
		c := *e
		if c.Op == "" {
			c.Op = op
		}
		if c.Peer == "" {
			c.Peer = peer
		}
		return &c
	}
	about := &Error{Op: op, Peer: peer, Area: e.Area, Code: e.Code, Err: err}
	if about.Code == "" {
		about.Code = CodeLost
	}
	return about
}

// Own returns the Text of the *Error that err is, or "" if the Text does not say it all without Op, Path and Err: that of a disk, or of the
// list of files.
func Own(err error) string {
	e := (*Error)(nil)
	if !errors.As(err, &e) || e == nil || e.isCause() && (e.Area != AreaSource || e.Err != nil) {
		return ""
	}
	return e.Text
}
