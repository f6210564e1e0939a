package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	rawName = "raw stream"
	rawTag  = protocol.ID("/bench/raw/1.0.0")
)

// rawStreams is the ping-pong a programmer writes by hand: each caller keeps
// one libp2p stream open and takes turns on it with a goroutine at the other
// end. Both ends reuse their buffers. It is what a libp2p transport can do, and
// it has neither errors, deadlines per call, nor multiplexing.
type rawStreams struct{}

// Name returns the contender's name.
func (rawStreams) Name() string { return rawName }

// Transports returns libp2p's transports.
func (rawStreams) Transports() []transport { return everyTransport }

// Start returns two connected hosts, without resource limits.
func (rawStreams) Start(t transport) (service, error) {
	p, err := newHostPair(t, unlimited)
	if err != nil {
		return nil, err
	}
	p.listener.SetStreamHandler(rawTag, serveRaw)
	if err := p.connect(); err != nil {
		return nil, p.fail(err)
	}
	return rawService{p}, nil
}

// rawService is a running rawStreams.
type rawService struct{ hosts *hostPair }

// Caller returns a caller with its own stream.
func (s rawService) Caller(ctx context.Context) (caller, error) {
	stream, err := s.hosts.dialer.NewStream(ctx, s.hosts.listener.ID(), rawTag)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := stream.SetDeadline(deadline); err != nil {
			return nil, errors.Join(err, stream.Reset())
		}
	}
	return &rawCaller{stream: stream, turns: newTurns(stream)}, nil
}

// Stop closes the hosts.
func (s rawService) Stop() error { return s.hosts.run() }

// rawCaller is the calling end of one stream.
type rawCaller struct {
	stream network.Stream
	turns
}

// Call sends payload and returns the frame that comes back.
func (c *rawCaller) Call(_ context.Context, payload []byte) ([]byte, error) {
	if err := c.send(payload); err != nil {
		return nil, err
	}
	return c.receive()
}

// Close ends the stream.
func (c *rawCaller) Close() error { return c.stream.Close() }

// serveRaw echoes frames until the caller closes the stream.
func serveRaw(stream network.Stream) {
	t := newTurns(stream)
	for {
		req, err := t.receive()
		if errors.Is(err, io.EOF) {
			_ = stream.Close() // the caller has closed too and looks at nothing more
			return
		}
		if err == nil {
			err = t.send(req)
		}
		if err != nil {
			_ = stream.Reset() // tells the caller, which reports it
			return
		}
	}
}

// turns is one end of a ping-pong, with the buffers of both directions.
type turns struct {
	w       io.Writer
	r       *bufio.Reader
	out, in []byte
}

// newTurns returns an end on rw.
func newTurns(rw io.ReadWriter) turns { return turns{w: rw, r: bufio.NewReader(rw)} }

// send writes the frame of body.
func (t *turns) send(body []byte) error {
	t.out = appendFrame(t.out[:0], body)
	if _, err := t.w.Write(t.out); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// receive returns the next frame's body, valid until the next receive.
func (t *turns) receive() ([]byte, error) {
	body, err := readFrame(t.r, t.in)
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	t.in = body
	return body, nil
}
