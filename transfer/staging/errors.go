package staging

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/peerlane/peerlane/transfer/manifest"
)

// The codes of this package, in addition to CodePathUnsafe, CodeExists, CodeTooLarge and CodeProtocol of package manifest.
const (
	CodeNoSpace manifest.Code = "no_space" // the disk is full: the state is kept
	CodeDenied  manifest.Code = "denied"   // the system does not let this process
	CodeIO      manifest.Code = "io"       // the disk failed
	CodeNoState manifest.Code = "no_state" // there is no such transfer to resume
	CodeBusy    manifest.Code = "busy"     // another process, or another Staging of this one, has the transfer
	CodeGone    manifest.Code = "gone"     // a received file was moved or deleted before the transfer finished
)

// ErrBusy is the error of FS.Lock when another holder has the lock. A Staging reports CodeBusy.
var ErrBusy = errors.New("another process is receiving the same into this folder")

// Error is the error type of this package. It wraps the system's error, if there is one.
type Error struct {
	Op   string // "write", "sync", "publish", ...
	Path string // the entry's, or "" for the whole transfer
	Code manifest.Code
	Text string // the remedy
	Err  error  // the cause
}

// Error returns `op "path": text: cause`, without the empty parts.
func (e *Error) Error() string {
	s := e.Op
	if e.Path != "" {
		s += " " + strconv.Quote(e.Path)
	}
	if e.Text != "" {
		s += ": " + e.Text
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrLost is the error of a write that was hit by a failing sync. Write the data again.
var ErrLost = errors.New("the disk has lost what was written meanwhile: write it again")

// takenError matches fs.ErrExist and names the side.
type takenError struct{}

var errTaken = takenError{}

func (takenError) Error() string { return "the destination already has something else with that name" }

// Is reports whether target is fs.ErrExist.
func (takenError) Is(target error) bool { return target == fs.ErrExist }

// errorf returns an *Error with the formatted text.
func errorf(op, path string, code manifest.Code, format string, args ...any) error {
	return &Error{Op: op, Path: path, Code: code, Text: fmt.Sprintf(format, args...)}
}

// wrap adds a code to a disk error.
func wrap(op, path string, err error) error {
	if err == nil || errors.As(err, new(*Error)) {
		return err
	}
	e := &Error{Op: op, Path: path, Code: CodeIO, Err: err}
	var m *manifest.Error
	switch {
	case errors.As(err, &m):
		e.Code = m.Code
	case errors.Is(err, ErrBusy):
		e.Code = CodeBusy
	case isNoSpace(err) && op == "create": // nothing has come
		e.Code, e.Text = CodeNoSpace, "the disk is full"
	case isNoSpace(err):
		e.Code, e.Text = CodeNoSpace, "the disk is full: make room and go on, what has come is kept"
	case err == fs.ErrExist:
		e.Code, e.Err = manifest.CodeExists, errTaken
	case errors.Is(err, fs.ErrExist):
		e.Code, e.Text = manifest.CodeExists, errTaken.Error()
	case errors.Is(err, fs.ErrPermission):
		e.Code, e.Text = CodeDenied, "this user may not write there"
	}
	return e
}
