package source

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/peerlane/peerlane/transfer/manifest"
)

// The codes of this package, in addition to CodePathUnsafe, CodeExists, CodeTooLarge and CodeProtocol of package manifest.
const (
	CodeSourceChanged manifest.Code = "source_changed" // the file is no longer the one that was found
	CodeDenied        manifest.Code = "denied"         // the system does not let this process read it
	CodeIO            manifest.Code = "io"             // the disk failed, or there is no such file
)

// ErrAllLeftOut is the cause of the *Error that Walk returns if it left out each of its paths, so that nothing is left to send. Options.Skip
// was called for each of them.
var ErrAllLeftOut = errors.New("nothing is left to send")

// Error is the error type of this package. It wraps the system's error, if there is one.
type Error struct {
	Op   string // "walk", "open", "read", "hash", ...
	Path string // the entry's; for a path given to Walk, as it was given
	Code manifest.Code
	Text string // the problem and its remedy
	Err  error  // the cause

	left reason
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

// as sets the reason why an item is left out.
func (e *Error) as(r reason) *Error {
	e.left = r
	return e
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func errorf(op, path string, code manifest.Code, format string, args ...any) *Error {
	return &Error{Op: op, Path: path, Code: code, Text: fmt.Sprintf(format, args...)}
}

func changed(op, path, format string, args ...any) *Error {
	return errorf(op, path, CodeSourceChanged, format, args...)
}

// wrap adds a code to an error of the disk or of package manifest.
func wrap(op, path string, err error) *Error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	if m := (*manifest.Error)(nil); errors.As(err, &m) {
		return &Error{Op: op, Path: path, Code: m.Code, Text: m.Text}
	}
	e := &Error{Op: op, Path: path, Code: CodeIO, Err: err}
	if errors.Is(err, fs.ErrPermission) {
		e.Code, e.Text = CodeDenied, "this user may not read it"
	}
	return e
}
