package manifest

import (
	"fmt"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// errorf returns the error of an entry: the problem, in a sentence that a user can act on.
func errorf(code fault.Code, path, format string, args ...any) *fault.Error {
	return &fault.Error{Path: path, Area: fault.AreaList, Code: code, Text: fmt.Sprintf(format, args...)}
}

func unsafef(path, format string, args ...any) *fault.Error {
	return errorf(fault.CodePathUnsafe, path, format, args...)
}
