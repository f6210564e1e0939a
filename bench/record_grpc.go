package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/mem"
)

// grpcFeed is gRPC-Go with its defaults: a client stream over one TLS
// connection. The server answers with how many it had when the stream ends,
// which is what Settle waits for: a new stream begins after it.
type grpcFeed struct{}

// Name returns the feed's name.
func (grpcFeed) Name() string { return "grpc stream" }

var feedDesc = grpc.StreamDesc{StreamName: "Feed", ClientStreams: true}

// Start returns a client stream to a new server.
func (grpcFeed) Start(got func([]byte) error) (runningFeed, error) {
	pair, err := newTLSPair()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		return nil, err
	}
	s := &runningGRPC{grpcService: grpcService{
		server: grpc.NewServer(grpc.Creds(credentials.NewTLS(pair.server)), grpc.ForceServerCodecV2(rawCodec{})),
		served: make(chan error, 1),
	}}
	read := func(_ any, stream grpc.ServerStream) error { return countFeed(stream, got) }
	s.server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench.Records",
		Streams:     []grpc.StreamDesc{{StreamName: feedDesc.StreamName, ClientStreams: true, Handler: read}},
	}, nil)
	go s.serve(l)
	s.conn, err = grpc.NewClient("passthrough:///"+l.Addr().String(),
		grpc.WithTransportCredentials(credentials.NewTLS(pair.client)),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(copyCodec{})))
	if err != nil {
		s.server.Stop()
		return nil, errors.Join(err, <-s.served)
	}
	return s, nil
}

// copyCodec is rawCodec for messages that leave later than Marshal returns: it
// copies them into gRPC's pool, as a generated codec does.
type copyCodec struct{ rawCodec }

// Marshal returns a pooled copy of v's bytes.
func (c copyCodec) Marshal(v any) (mem.BufferSlice, error) {
	raw, err := c.rawCodec.Marshal(v)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.Copy(raw[0].ReadOnlyData(), mem.DefaultBufferPool())}, nil
}

// countFeed gives every message to got, and answers with their number.
func countFeed(stream grpc.ServerStream, got func([]byte) error) error {
	for n := uint64(0); ; n++ {
		var record []byte
		err := stream.RecvMsg(&record)
		if err == io.EOF {
			reply := binary.BigEndian.AppendUint64(nil, n)
			return stream.SendMsg(&reply)
		}
		if err == nil {
			err = got(record)
		}
		if err != nil {
			return err
		}
	}
}

// runningGRPC is a started grpcFeed.
type runningGRPC struct {
	grpcService
	stream  grpc.ClientStream
	written uint64 // on it
}

// Write sends each record as a message.
func (s *runningGRPC) Write(ctx context.Context, records [][]byte) error {
	if s.stream == nil {
		var err error
		if s.stream, err = s.conn.NewStream(ctx, &feedDesc, "/bench.Records/Feed"); err != nil {
			return err
		}
	}
	for _, r := range records {
		if err := s.stream.SendMsg(&r); err != nil {
			return errors.Join(err, s.stream.RecvMsg(new([]byte))) // which says why
		}
		s.written++
	}
	return nil
}

// Settle ends the stream, and takes the server's count.
func (s *runningGRPC) Settle(context.Context, uint64) error {
	if err := s.stream.CloseSend(); err != nil {
		return err
	}
	var reply []byte
	if err := s.stream.RecvMsg(&reply); err != nil {
		return err
	}
	if n := binary.BigEndian.Uint64(reply); n != s.written {
		return fmt.Errorf("the server had %d records of %d", n, s.written)
	}
	s.stream, s.written = nil, 0
	return nil
}
