package handler

import (
	"reflect"
	"runtime"
)

// Go gives a goroutine no name that it could read, but it can read its stack. A handler's number stands there as calls of the functions
// octal0 to octal7, the lowest digit first. In the trace of a panic they are below the handler.

var (
	runEntry = entry(Run)
	octal    = [8]uintptr{entry(octal0), entry(octal1), entry(octal2), entry(octal3), entry(octal4), entry(octal5), entry(octal6), entry(octal7)}
)

func entry(fn any) uintptr { return reflect.ValueOf(fn).Pointer() }

// mark calls fn below the calls that stand for n.
//
//go:noinline
func mark(n uint32, fn func()) {
	if n == 0 {
		fn()
		return
	}
	switch n % 8 {
	case 0:
		octal0(n/8, fn)
	case 1:
		octal1(n/8, fn)
	case 2:
		octal2(n/8, fn)
	case 3:
		octal3(n/8, fn)
	case 4:
		octal4(n/8, fn)
	case 5:
		octal5(n/8, fn)
	case 6:
		octal6(n/8, fn)
	case 7:
		octal7(n/8, fn)
	}
}

//go:noinline
func octal0(n uint32, fn func()) { mark(n, fn) }

//go:noinline
func octal1(n uint32, fn func()) { mark(n, fn) }

//go:noinline
func octal2(n uint32, fn func()) { mark(n, fn) }

//go:noinline
func octal3(n uint32, fn func()) { mark(n, fn) }

//go:noinline
func octal4(n uint32, fn func()) { mark(n, fn) }

//go:noinline
func octal5(n uint32, fn func()) { mark(n, fn) }

//go:noinline
func octal6(n uint32, fn func()) { mark(n, fn) }

//go:noinline
func octal7(n uint32, fn func()) { mark(n, fn) }

// marked returns the number on the calling goroutine's stack, of the innermost handler, or 0.
func marked() uint32 {
	var number uint32
	pcs := make([]uintptr, 256)
	for skip := 0; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs)
		frames := runtime.CallersFrames(pcs[:n])
		for more := n > 0; more; {
			var f runtime.Frame
			f, more = frames.Next()
			if f.Entry == runEntry {
				return number
			}
			for digit, at := range octal {
				if f.Entry == at {
					number = number*8 + uint32(digit)
				}
			}
		}
		if n < len(pcs) {
			return 0
		}
	}
}
