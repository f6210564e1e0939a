// Package handler tells whether a goroutine runs a handler of the application. What ends a session or a server waits for handlers, but
// not for the one that calls it, and Go gives a goroutine no other name than its stack.
package handler

import (
	"runtime"
	"strings"
)

// A Kind is what a handler serves.
type Kind uint8

// The kinds.
const (
	None   Kind = iota
	Call        // a request
	OneWay      // a one-way message
	Stream      // a stream
	Kinds       // how many there are
)

// functions are those that call handlers, at the bottom of their goroutines' stacks.
var functions = map[string]Kind{
	"github.com/peerlane/peerlane/session.(*Session).serve":       Call,
	"github.com/peerlane/peerlane/session.(*Session).deliverOne":  OneWay,
	"github.com/peerlane/peerlane/session.(*Session).serveStream": Stream,
	"github.com/peerlane/peerlane.(*servedTag).serveLegacy":       Call,
}

// Here returns which kind of handler the calling goroutine runs, of whichever session.
func Here() Kind {
	pcs := make([]uintptr, 256)
	for skip := 2; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs)
		frames := runtime.CallersFrames(pcs[:n])
		for more := n > 0; more; {
			var f runtime.Frame
			f, more = frames.Next()
			name, _, _ := strings.Cut(f.Function, ".func") // a closure in it
			if kind := functions[name]; kind != None {
				return kind
			}
		}
		if n < len(pcs) {
			return None
		}
	}
}
