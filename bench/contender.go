package main

import (
	"context"
	"errors"
)

// A transport is what the bytes travel on. The systems that are not libp2p run
// on overTCP only.
type transport string

const (
	overTCP  transport = "tcp"  // TCP, TLS 1.3
	overQUIC transport = "quic" // QUIC v1
)

var (
	onlyTCP        = []transport{overTCP}
	everyTransport = []transport{overTCP, overQUIC}
)

// A contender is one system under test. It knows how to start both sides of an
// echo service, and nothing of how it will be measured.
type contender interface {
	// Name returns the contender's name as the table and -only know it.
	Name() string
	// Transports returns what the contender can run on.
	Transports() []transport
	// Start returns a running echo service. It fails when either side does not
	// come up; nothing is left running then.
	Start(t transport) (service, error)
}

// A service is both sides of a started contender, connected to each other.
type service interface {
	// Caller returns a way to call for one goroutine. ctx bounds the caller's
	// whole life, and its deadline is that of all its calls.
	Caller(ctx context.Context) (caller, error)
	// Stop ends both sides. All callers are closed before.
	Stop() error
}

// A caller calls the echo service, one call at a time.
type caller interface {
	// Call returns the echo of payload. The result is valid until the next Call.
	Call(ctx context.Context, payload []byte) ([]byte, error)
	// Close gives up what this caller holds.
	Close() error
}

// contenders returns every contender in the order of the table.
func contenders() []contender {
	return []contender{
		peerlaneSend{},
		peerlaneSend{psk: true},
		rawStreams{},
		streamPerCall{},
		grpcUnary{},
		natsRequest{},
		drpcInvoke{},
	}
}

// echo is the handler that every contender serves.
func echo(req []byte) ([]byte, error) { return req, nil }

// callFunc is a caller that holds nothing of its own: all callers share one
// client, which is safe for concurrent use.
type callFunc func(ctx context.Context, payload []byte) ([]byte, error)

// Call calls f.
func (f callFunc) Call(ctx context.Context, payload []byte) ([]byte, error) {
	return f(ctx, payload)
}

// Close does nothing.
func (f callFunc) Close() error { return nil }

// cleanups is a stack of what a service must end, the last started first.
type cleanups []func() error

// push adds fn to be run before all that were pushed earlier.
func (c *cleanups) push(fn func() error) { *c = append(*c, fn) }

// run runs and forgets every function, and returns their errors joined.
func (c *cleanups) run() error {
	var errs []error
	for i := len(*c) - 1; i >= 0; i-- {
		errs = append(errs, (*c)[i]())
	}
	*c = nil
	return errors.Join(errs...)
}

// fail runs c because of err, and returns err joined with what that gave.
func (c *cleanups) fail(err error) error { return errors.Join(err, c.run()) }
