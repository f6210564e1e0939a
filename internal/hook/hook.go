// Package hook calls functions of the application's, which need not return: they may panic, or end their goroutine by runtime.Goexit, as
// testing.T.FailNow does. Whether one has returned is a flag, and not what recover says.
package hook

import (
	"fmt"
	"reflect"
	"runtime/debug"
)

// A Failure says how a function has ended that did not return.
type Failure struct {
	Panic any    // what it has panicked with; nil: it has ended its goroutine by runtime.Goexit
	Stack []byte // of the panic
}

// Error returns "panicked: value" or "ended its goroutine".
func (f *Failure) Error() string {
	if f.Panic == nil {
		return "ended its goroutine"
	}
	return fmt.Sprintf("panicked: %v", f.Panic)
}

// Rethrow panics again with what the function has panicked with. It does nothing on nil, nor for one that has ended its goroutine.
func (f *Failure) Rethrow() {
	if f != nil && f.Panic != nil {
		panic(f.Panic)
	}
}

// Why returns the Failure of a function that has not returned, of which recovered is what recover returned. It is for a deferred function
// that knows by a flag that it did not.
func Why(recovered any) *Failure {
	f := &Failure{Panic: recovered}
	if recovered != nil {
		f.Stack = debug.Stack()
	}
	return f
}

// Run calls fn, and then after: with nil when fn has returned. A panic of fn ends in Run; a runtime.Goexit goes on once after has returned.
func Run(fn func(), after func(*Failure)) {
	returned := false
	defer func() {
		if returned {
			after(nil)
			return
		}
		after(Why(recover()))
	}()
	fn()
	returned = true
}

// Do calls fn in a goroutine of its own and returns when that has ended: with nil when fn has returned, and a *Failure when it has ended the
// goroutine by runtime.Goexit, which would have been the caller's. A panic of fn is not recovered from.
func Do(fn func()) error {
	done := make(chan error, 1)
	go func() { // ends with fn, which is waited for
		returned := false
		defer func() {
			if returned {
				done <- nil
				return
			}
			if v := recover(); v != nil {
				panic(v)
			}
			done <- &Failure{}
		}()
		fn()
		returned = true
	}()
	return <-done
}

// Err returns the error that a function of the application's has returned. A nil pointer in an error, which is not nil, becomes an error that
// says so: its methods would panic.
func Err(err error) error {
	if v := reflect.ValueOf(err); v.Kind() == reflect.Pointer && v.IsNil() {
		return fmt.Errorf("a nil %T as an error", err)
	}
	return err
}
