package manifest

import (
	"fmt"
	"strconv"
)

// A Code says what kind of failure it is, to programs and to the peer. The names are stable.
type Code string

// The codes of this package.
const (
	CodePathUnsafe Code = "path_unsafe" // a path or a link's target that is not taken
	CodeExists     Code = "exists"      // two entries for one place
	CodeTooLarge   Code = "too_large"   // over a limit
	CodeProtocol   Code = "protocol"    // bytes or an order that no right sender makes
)

// Error is the error of this package: what is wrong with which entry, in a sentence that a person can act on.
type Error struct {
	Code Code
	Path string // the entry's, as the sender wrote it: not to be trusted
	Text string // what is wrong, and what helps
}

// Error returns `"path": text`, the path quoted and cut.
func (e *Error) Error() string {
	if e.Path == "" {
		return e.Text
	}
	const most = 200
	if len(e.Path) > most {
		return strconv.Quote(e.Path[:most]) + "...: " + e.Text
	}
	return strconv.Quote(e.Path) + ": " + e.Text
}

func errorf(code Code, path, format string, args ...any) *Error {
	return &Error{Code: code, Path: path, Text: fmt.Sprintf(format, args...)}
}

func unsafef(path, format string, args ...any) *Error {
	return errorf(CodePathUnsafe, path, format, args...)
}
