package session

import (
	"runtime"
	"strings"
)

// A handlerKind is what a handler serves.
type handlerKind uint8

const (
	handlerNone handlerKind = iota
	handlerCall
	handlerOneWay
	handlerStream
	handlerKinds
)

// handlerFunctions are the functions of this package that call handlers, and stand at the bottom of their stacks.
var handlerFunctions = map[string]handlerKind{
	"serve":       handlerCall,
	"deliverOne":  handlerOneWay,
	"serveStream": handlerStream,
}

// handlerHere returns which kind of handler the calling goroutine runs, of whichever session. Close must not wait for the handler
// that calls it, and Go gives a goroutine no other name than its stack.
func handlerHere() handlerKind {
	const prefix = "github.com/peerlane/peerlane/session.(*Session)."
	pcs := make([]uintptr, 256)
	for skip := 2; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs)
		frames := runtime.CallersFrames(pcs[:n])
		for more := n > 0; more; {
			var f runtime.Frame
			f, more = frames.Next()
			if name, ok := strings.CutPrefix(f.Function, prefix); ok && handlerFunctions[name] != handlerNone {
				return handlerFunctions[name]
			}
		}
		if n < len(pcs) {
			return handlerNone
		}
	}
}

// exempt lets the end of the session not wait for one handler of a kind, the one that calls Close. s.mu is held.
func (s *Session) exempt(kind handlerKind) {
	if kind != handlerNone {
		s.exempted[kind]++
		s.stirLocked()
	}
}
