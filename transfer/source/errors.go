package source

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// ErrAllLeftOut is the cause of the *transfer.Error that Walk returns if it left out each of its paths, so that nothing is left to send. Options.OnLeftOut
// was called for each of them.
var ErrAllLeftOut = errors.New("nothing is left to send")

// leftError is the error of an item that is left out, if Options.OnLeftOut allows that.
type leftError struct {
	err *fault.Error
	why reason
}

func (e *leftError) Error() string { return e.err.Error() }

// Unwrap returns the *Error.
func (e *leftError) Unwrap() error { return e.err }

func errorf(op, path string, code fault.Code, format string, args ...any) *fault.Error {
	return &fault.Error{Op: op, Path: path, Area: fault.AreaSource, Code: code, Text: fmt.Sprintf(format, args...)}
}

func changed(op, path, format string, args ...any) *fault.Error {
	return errorf(op, path, fault.CodeSourceChanged, format, args...)
}

// wrap adds a code to an error of the disk, and the op and path to one of the list of files.
func wrap(op, path string, err error) *fault.Error {
	if e := (*fault.Error)(nil); errors.As(err, &e) {
		if e.Area == fault.AreaList {
			return &fault.Error{Op: op, Path: path, Area: fault.AreaSource, Code: e.Code, Text: e.Text}
		}
		return e
	}
	e := &fault.Error{Op: op, Path: path, Area: fault.AreaSource, Code: fault.CodeIO, Err: err}
	if errors.Is(err, fs.ErrPermission) {
		e.Code, e.Text = fault.CodeDenied, "this user may not read it"
	}
	return e
}
