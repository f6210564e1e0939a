package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/internal/pause"
	"github.com/peerlane/peerlane/session"
)

// drainInOrder: a Shutdown lets the call in progress end, refuses new ones, and leaves no session.
func drainInOrder(ctx context.Context, l *lab) (figure string, err error) {
	running, release := make(chan struct{}), make(chan struct{})
	x, err := newExchange(l, demoTag+"drain", func(request []byte) ([]byte, error) {
		close(running)
		<-release
		return reversed(request), nil
	}, keys{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	slow, down := make(chan error, 1), make(chan error, 1)
	go func() { slow <- x.call(ctx, numbered(1, callSize)) }() // ends with ctx, at the latest
	if err := first(ctx, running, slow); err != nil {
		return "", err
	}
	go func() { down <- x.server.Shutdown(ctx) }() // likewise
	refused, err := awaitRefusal(ctx, x)
	close(release)
	if err != nil {
		return "", err
	}
	if err := errors.Join(<-slow, <-down); err != nil {
		return "", err
	}
	if n := len(x.server.Sessions()); n != 0 {
		return "", fmt.Errorf("%d sessions are left", n)
	}
	return fmt.Sprintf("1 call finished, a new one refused (%s)", refused), nil
}

// first waits for running, and fails with what comes on failed before it.
func first(ctx context.Context, running <-chan struct{}, failed <-chan error) error {
	select {
	case <-running:
		return nil
	case err := <-failed:
		return fmt.Errorf("the call ended before its handler ran: %w", err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitRefusal waits until the server drains, makes a call, and returns the outcome with which it was refused.
func awaitRefusal(ctx context.Context, x *exchange) (session.Outcome, error) {
	err := eventually(ctx, func() error {
		for _, s := range x.server.Sessions() {
			if !s.Draining() {
				return errors.New("the server does not drain")
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	_, err = x.client.Send(ctx, x.b.ID(), x.tag, []byte("late"))
	e, ok := errors.AsType[*peerlane.Error](err)
	if !ok || e.Outcome != session.NotSent && e.Outcome != session.Rejected {
		return 0, fmt.Errorf("a call during the drain was not refused: %w", err)
	}
	return e.Outcome, nil
}

// nothingLeft: after all steps there is no stream and no handler, and after Close no goroutine.
func nothingLeft(ctx context.Context, l *lab) (string, error) {
	err := eventually(ctx, func() error {
		if streams, tags := l.streams(), l.handlers(); streams > 0 || len(tags) > 0 {
			return fmt.Errorf("%d streams and the tags %v are left", streams, tags)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	if err := l.close(); err != nil {
		return "", err
	}
	if l.goroutines == 0 {
		return "0 streams, 0 tags", nil
	}
	err = eventually(ctx, func() error {
		if n := runtime.NumGoroutine(); n > l.goroutines {
			return fmt.Errorf("%d goroutines are left, there were %d before", n, l.goroutines)
		}
		return nil
	})
	return fmt.Sprintf("0 streams, 0 tags, %d goroutines", l.goroutines), err
}

// settleTime bounds what may need a moment to come true: a conn that was closed over TCP waits up to 5 s for its peer.
const settleTime = 8 * time.Second

// eventually returns nil as soon as check does, or check's error when settleTime is over.
func eventually(ctx context.Context, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		if pause.For(ctx, 10*time.Millisecond) != nil {
			return err
		}
	}
}
