package staging

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// ErrBusy is the error of FS.Lock when another holder has the lock. A Staging reports CodeBusy.
var ErrBusy = errors.New("another process is receiving the same into this folder")

// ErrLost is the error of a write that was hit by a failing sync. Write the data again.
var ErrLost = errors.New("the disk has lost what was written meanwhile: write it again")

// takenError matches fs.ErrExist and names the side.
type takenError struct{}

var errTaken = takenError{}

func (takenError) Error() string { return "the destination already has something else with that name" }

// Is reports whether target is fs.ErrExist.
func (takenError) Is(target error) bool { return target == fs.ErrExist }

// errorf returns an *fault.Error with the formatted text.
func errorf(op, path string, code fault.Code, format string, args ...any) error {
	return &fault.Error{Op: op, Path: path, Area: fault.AreaDestination, Code: code, Text: fmt.Sprintf(format, args...)}
}

// wrap adds a code to a disk error, and an op to an error of the list of files.
func wrap(op, path string, err error) error {
	var known *fault.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known) && known.Op == "":
		e := *known
		e.Op = op
		return &e
	case known != nil:
		return err
	}
	e := &fault.Error{Op: op, Path: path, Area: fault.AreaDestination, Code: fault.CodeIO, Err: err}
	switch {
	case errors.Is(err, ErrBusy):
		e.Code = fault.CodeBusy
	case isNoSpace(err) && op == "create": // nothing has come
		e.Code, e.Text = fault.CodeNoSpace, "the disk is full"
	case isNoSpace(err):
		e.Code, e.Text = fault.CodeNoSpace, "the disk is full: make room and go on, what has come is kept"
	case err == fs.ErrExist:
		e.Code, e.Err = fault.CodeExists, errTaken
	case errors.Is(err, fs.ErrExist):
		e.Code, e.Text = fault.CodeExists, errTaken.Error()
	case errors.Is(err, fs.ErrPermission):
		e.Code, e.Text = fault.CodeDenied, "this user may not write there"
	}
	return e
}
