// Package invalid has the error that wrong arguments, options and fields of configurations match, in whichever package.
package invalid

import "errors"

// Err is ErrInvalid of the packages. The text that wraps it names the argument or field.
var Err = errors.New("invalid value")
