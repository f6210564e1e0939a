package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/mem"
)

const (
	grpcName   = "grpc"
	grpcMethod = "/bench.Echo/Call"
)

// grpcUnary is gRPC-Go with its defaults: a unary method over one TLS
// connection that all callers share. The codec hands bytes through, so that no
// protobuf cost is counted.
type grpcUnary struct{}

// Name returns the contender's name.
func (grpcUnary) Name() string { return grpcName }

// Transports returns what gRPC-Go runs on.
func (grpcUnary) Transports() []transport { return onlyTCP }

// Start returns a server and a client connection to it.
func (grpcUnary) Start(transport) (service, error) {
	pair, err := newTLSPair()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		return nil, err
	}
	s := &grpcService{
		server: grpc.NewServer(grpc.Creds(credentials.NewTLS(pair.server)), grpc.ForceServerCodecV2(rawCodec{})),
		served: make(chan error, 1),
	}
	s.server.RegisterService(&echoService, nil)
	go s.serve(l)
	s.conn, err = grpc.NewClient("passthrough:///"+l.Addr().String(),
		grpc.WithTransportCredentials(credentials.NewTLS(pair.client)),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{})))
	if err != nil {
		s.server.Stop()
		return nil, errors.Join(err, <-s.served)
	}
	return s, nil
}

// grpcService is a running grpcUnary.
type grpcService struct {
	server *grpc.Server
	served chan error // the end of serve
	conn   *grpc.ClientConn
}

// serve owns the listener. It ends when the server is stopped and reports to
// served.
func (s *grpcService) serve(l net.Listener) { s.served <- s.server.Serve(l) }

// Caller returns a caller on the shared connection.
func (s *grpcService) Caller(context.Context) (caller, error) {
	return callFunc(func(ctx context.Context, payload []byte) ([]byte, error) {
		var reply []byte
		err := s.conn.Invoke(ctx, grpcMethod, &payload, &reply)
		return reply, err
	}), nil
}

// Stop ends the connection and the server.
func (s *grpcService) Stop() error {
	err := s.conn.Close()
	s.server.Stop()
	return errors.Join(err, <-s.served)
}

// echoService is what protoc would have written for one unary method.
var echoService = grpc.ServiceDesc{
	ServiceName: "bench.Echo",
	Methods:     []grpc.MethodDesc{{MethodName: "Call", Handler: serveGRPC}},
}

// serveGRPC decodes one request and answers it.
func serveGRPC(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var req []byte
	if err := decode(&req); err != nil {
		return nil, err
	}
	reply, err := echo(req)
	return &reply, err
}

// rawCodec is a gRPC codec whose messages are *[]byte.
type rawCodec struct{}

// Name returns the content subtype.
func (rawCodec) Name() string { return "raw" }

// Marshal returns the bytes of v themselves, not copied.
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("raw codec: %T is not *[]byte", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*b)}, nil
}

// Unmarshal makes v a copy of data, which gRPC reuses.
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("raw codec: %T is not *[]byte", v)
	}
	*b = data.Materialize()
	return nil
}
