package main

import (
	"fmt"
	"io"
	"sync"
)

// output is stdout. It keeps the first error, because a ticket or a result that cannot be written makes the command fail.
type output struct {
	w io.Writer

	mu  sync.Mutex
	err error
}

// Write writes, and keeps the error.
func (o *output) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.err == nil {
			o.err = err
		}
	}
	return n, err
}

// failed returns the first error, or nil.
func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		return nil
	}
	return fmt.Errorf("stdout: %w", o.err)
}
