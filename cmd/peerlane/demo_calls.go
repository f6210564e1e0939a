package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/session"
)

// An exchange is a server on a lab's b and a client on its a, for one tag.
type exchange struct {
	*lab
	tag    protocol.ID
	server *peerlane.Server
	client *peerlane.Client
}

// keys are the pre-shared keys of an exchange; nil is none.
type keys struct{ server, client []byte }

// unstretched derives keys at next to no cost. Those of the demo are random, which no guessing finds anyway.
var unstretched = &peerlane.PSKOptions{Params: psk.Params{Time: 1, MemoryKiB: 64, Threads: 1}}

// newExchange serves tag with handler, and makes a client for it.
func newExchange(l *lab, tag protocol.ID, handler peerlane.StreamHandler, k keys) (*exchange, error) {
	cfg := peerlane.DefaultClientConfig()
	cfg.AdmitAll, cfg.MaxRetries = true, 0
	x := &exchange{lab: l, tag: tag}
	var err error
	serve := peerlane.DefaultServerConfig()
	serve.AllowPeers = []peer.ID{l.dialer.ID()}
	if x.server, err = peerlane.NewServer(l.b.Host(), serve); err != nil {
		return nil, err
	}
	if x.client, err = peerlane.NewClient(l.dialer, cfg); err != nil {
		return nil, err
	}
	inDemo.show(x.client, x.server)
	if k.server != nil {
		err = peerlane.UseModernPSKServer(x.server, k.server, unstretched)
	}
	if k.client != nil {
		err = errors.Join(err, peerlane.UseModernPSKClient(x.client, k.client, unstretched))
	}
	if err == nil {
		err = x.server.Start(tag, handler)
	}
	if err != nil {
		return nil, errors.Join(err, x.close())
	}
	return x, nil
}

// connect opens a session for messages and streams.
func (x *exchange) connect(ctx context.Context) (*session.Session, error) {
	return x.client.Connect(ctx, x.b.ID(), x.tag)
}

// call makes one call and checks that the answer is the echo of the request.
func (x *exchange) call(ctx context.Context, body []byte) error {
	got, err := x.client.Send(ctx, x.b.ID(), x.tag, body)
	if err == nil && !bytes.Equal(got, reversed(body)) {
		err = fmt.Errorf("call: %d bytes came back changed", len(body))
	}
	return err
}

func (x *exchange) close() error {
	defer inDemo.hide(x.client, x.server)
	return errors.Join(x.client.Close(), x.server.Stop())
}

// reversed answers a request with its bytes in reverse: an answer that nobody gives by accident.
func reversed(b []byte) []byte {
	b = bytes.Clone(b)
	slices.Reverse(b)
	return b
}

func reverseHandler(request []byte) ([]byte, error) { return reversed(request), nil }

// numbered returns a body of size bytes that no other n has.
func numbered(n, size int) []byte {
	b := bytes.Repeat([]byte{byte(n)}, size)
	binary.BigEndian.PutUint64(b, uint64(n))
	return b
}

const (
	callCount   = 2000
	callSize    = 256
	callsAtOnce = 64
)

// callsInSequence: each call is answered with its own answer.
func callsInSequence(ctx context.Context, l *lab) (figure string, err error) {
	x, err := newExchange(l, demoTag+"calls", reverseHandler, keys{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	times := make([]time.Duration, callCount)
	for i := range times {
		began := time.Now()
		if err := x.call(ctx, numbered(i, callSize)); err != nil {
			return "", err
		}
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	return fmt.Sprintf("%d calls, %d answered, %s, p99 %s",
		callCount, len(times), shortTime(times[callCount/2]), shortTime(times[callCount*99/100])), nil
}

// callsInParallel: many calls at once share one session, and none gets another's answer.
func callsInParallel(ctx context.Context, l *lab) (figure string, err error) {
	x, err := newExchange(l, demoTag+"parallel", reverseHandler, keys{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	began := time.Now()
	errs := make([]error, callsAtOnce)
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for i := w; i < callCount && errs[w] == nil; i += callsAtOnce {
				errs[w] = x.call(ctx, numbered(i, callSize))
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	sessions := len(x.server.GetConnectionsInfo())
	if sessions != 1 {
		errs = append(errs, fmt.Errorf("%d sessions, want one", sessions))
	}
	return fmt.Sprintf("%d calls, %d at once, on %d session, %.0f calls/s",
		callCount, callsAtOnce, sessions, callCount/took.Seconds()), errors.Join(errs...)
}
