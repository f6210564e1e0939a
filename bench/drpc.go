package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"storj.io/drpc"
	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcserver"
)

const drpcMethod = "/bench.Echo/Call"

// drpcInvoke is drpc over TLS. A drpc connection carries one call at a time, so
// each caller keeps one of its own; that spares drpc the work of its pool.
type drpcInvoke struct{}

// Name returns the contender's name.
func (drpcInvoke) Name() string { return "drpc" }

// Transports returns what drpc runs on.
func (drpcInvoke) Transports() []transport { return onlyTCP }

// Start returns a server.
func (drpcInvoke) Start(transport) (service, error) {
	pair, err := newTLSPair()
	if err != nil {
		return nil, err
	}
	l, err := tls.Listen("tcp", loopback+":0", pair.server)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &drpcService{addr: l.Addr().String(), client: pair.client, cancel: cancel, served: make(chan error, 1)}
	go s.serve(ctx, l)
	return s, nil
}

// drpcService is a running drpcInvoke.
type drpcService struct {
	addr   string
	client *tls.Config
	cancel context.CancelFunc
	served chan error // the end of serve
}

// serve owns the listener and its connections. It ends when ctx does and
// reports to served.
func (s *drpcService) serve(ctx context.Context, l net.Listener) {
	s.served <- drpcserver.New(drpcEcho{}).Serve(ctx, l)
}

// Caller returns a caller with its own connection.
func (s *drpcService) Caller(ctx context.Context) (caller, error) {
	d := tls.Dialer{Config: s.client}
	c, err := d.DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, err
	}
	return drpcCaller{drpcconn.New(c)}, nil
}

// Stop ends the server.
func (s *drpcService) Stop() error {
	s.cancel()
	return <-s.served
}

// drpcCaller is one connection.
type drpcCaller struct{ *drpcconn.Conn }

// Call invokes the echo method.
func (c drpcCaller) Call(ctx context.Context, payload []byte) ([]byte, error) {
	var reply []byte
	err := c.Invoke(ctx, drpcMethod, drpcBytes{}, &payload, &reply)
	return reply, err
}

// drpcEcho is the server's handler, in place of a generated one and its mux.
type drpcEcho struct{}

// HandleRPC reads one request and answers it.
func (drpcEcho) HandleRPC(stream drpc.Stream, rpc string) error {
	if rpc != drpcMethod {
		return fmt.Errorf("method %q: unknown", rpc)
	}
	var req []byte
	if err := stream.MsgRecv(&req, drpcBytes{}); err != nil {
		return err
	}
	reply, err := echo(req)
	if err != nil {
		return err
	}
	return stream.MsgSend(&reply, drpcBytes{})
}

// drpcBytes is a drpc encoding whose messages are *[]byte.
type drpcBytes struct{}

// Marshal returns the bytes of msg themselves, not copied.
func (drpcBytes) Marshal(msg drpc.Message) ([]byte, error) {
	b, ok := msg.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("bytes encoding: %T is not *[]byte", msg)
	}
	return *b, nil
}

// Unmarshal makes msg a copy of buf, which drpc reuses.
func (drpcBytes) Unmarshal(buf []byte, msg drpc.Message) error {
	b, ok := msg.(*[]byte)
	if !ok {
		return fmt.Errorf("bytes encoding: %T is not *[]byte", msg)
	}
	*b = append([]byte(nil), buf...)
	return nil
}
