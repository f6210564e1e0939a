package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/peerlane/peerlane"
)

// These tests run grpc-go, unchanged, over peerlane's net.Conn layer: the peer
// is addressed as "passthrough:///<peer id>".

const (
	connTag     = protocol.ID("/bench/grpc-conn/1.0.0")
	testTimeout = 30 * time.Second
)

// A dialFunc makes the net.Conn that gRPC asks for by peer ID.
type dialFunc func(ctx context.Context, addr string) (net.Conn, error)

// dialWays are the ways of peerlane to open a conn.
var dialWays = map[string]func(h host.Host) dialFunc{
	"Dial": func(h host.Host) dialFunc {
		return func(ctx context.Context, addr string) (net.Conn, error) {
			pid, err := peer.Decode(addr)
			if err != nil {
				return nil, err
			}
			return peerlane.Dial(ctx, h, pid, connTag)
		}
	},
	"Dialer": func(h host.Host) dialFunc {
		d := &peerlane.Dialer{Host: h, Tag: connTag}
		return func(ctx context.Context, addr string) (net.Conn, error) {
			return d.DialContext(ctx, peerlane.Network, addr)
		}
	},
}

// forEachConn runs fn over each transport, and with each way to dial.
func forEachConn(t *testing.T, fn func(t *testing.T, g *grpcPair)) {
	for _, over := range everyTransport {
		for name, way := range dialWays {
			t.Run(string(over)+"/"+name, func(t *testing.T) { fn(t, newGRPCPair(t, over, way)) })
		}
	}
}

// A grpcPair is a gRPC server on one host and a client on another.
type grpcPair struct {
	hosts  *hostPair
	server *grpc.Server
	served chan error    // the end of serve
	gate   chan struct{} // a stream waits for it after its first message
	conn   *grpc.ClientConn
	ctx    context.Context
}

// newGRPCPair returns a pair that the end of the test stops.
func newGRPCPair(t *testing.T, over transport, way func(host.Host) dialFunc) *grpcPair {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	hosts, err := newHostPair(over)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, hosts.run()) })
	l, err := peerlane.Listen(hosts.listener, connTag)
	require.NoError(t, err)
	require.NoError(t, hosts.connect())

	g := &grpcPair{hosts: hosts, served: make(chan error, 1), gate: make(chan struct{}), ctx: ctx}
	g.server = grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}))
	g.server.RegisterService(g.service(), nil)
	go g.serve(l)
	t.Cleanup(g.server.Stop)
	g.conn, err = grpc.NewClient("passthrough:///"+hosts.listener.ID().String(),
		grpc.WithContextDialer(way(hosts.dialer)),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // libp2p has secured it
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{})))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.conn.Close()) })
	return g
}

// serve owns the listener. It ends when the server is stopped and reports to
// served.
func (g *grpcPair) serve(l net.Listener) { g.served <- g.server.Serve(l) }

// service returns the test's service: Echo, Caller (the address of the calling
// peer), Wait (for the deadline) and Count (streams the numbers below 100).
func (g *grpcPair) service() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "test.Service",
		Methods: []grpc.MethodDesc{
			unaryMethod("Echo", func(_ context.Context, req []byte) ([]byte, error) { return req, nil }),
			unaryMethod("Caller", func(ctx context.Context, _ []byte) ([]byte, error) {
				p, _ := grpcpeer.FromContext(ctx)
				return []byte(p.Addr.String()), nil
			}),
			unaryMethod("Wait", func(ctx context.Context, _ []byte) ([]byte, error) {
				<-ctx.Done()
				return nil, status.FromContextError(ctx.Err()).Err()
			}),
		},
		Streams: []grpc.StreamDesc{{StreamName: "Count", ServerStreams: true, Handler: g.count}},
	}
}

// unaryMethod returns a method that calls fn.
func unaryMethod(name string, fn func(context.Context, []byte) ([]byte, error)) grpc.MethodDesc {
	return grpc.MethodDesc{
		MethodName: name,
		Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var req []byte
			if err := decode(&req); err != nil {
				return nil, err
			}
			reply, err := fn(ctx, req)
			return &reply, err
		},
	}
}

// countTo is how many messages a Count stream has.
const countTo = 100

// count sends the numbers below countTo, all but the first after the gate.
func (g *grpcPair) count(_ any, s grpc.ServerStream) error {
	var req []byte
	if err := s.RecvMsg(&req); err != nil {
		return err
	}
	for i := range countTo {
		if err := s.SendMsg(&[]byte{byte(i)}); err != nil {
			return err
		}
		if i > 0 {
			continue
		}
		select {
		case <-g.gate:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
	return nil
}

// call makes one unary call.
func (g *grpcPair) call(ctx context.Context, method string, req []byte) ([]byte, error) {
	var reply []byte
	err := g.conn.Invoke(ctx, "/test.Service/"+method, &req, &reply)
	return reply, err
}

// openCount opens a Count stream and reads its first message.
func (g *grpcPair) openCount(t *testing.T) grpc.ClientStream {
	t.Helper()
	s, err := g.conn.NewStream(g.ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.Service/Count")
	require.NoError(t, err)
	require.NoError(t, s.SendMsg(&[]byte{}))
	require.NoError(t, s.CloseSend())
	requireNext(t, s, 0)
	return s
}

// requireNext reads one message of a Count stream.
func requireNext(t *testing.T, s grpc.ClientStream, want int) {
	t.Helper()
	var got []byte
	require.NoError(t, s.RecvMsg(&got), "message %d", want)
	require.Equal(t, []byte{byte(want)}, got)
}

// requireRest reads the messages after the first, and the end.
func requireRest(t *testing.T, s grpc.ClientStream) {
	t.Helper()
	for i := 1; i < countTo; i++ {
		requireNext(t, s, i)
	}
	var got []byte
	require.ErrorIs(t, s.RecvMsg(&got), io.EOF)
}

func TestGRPCUnaryOverConn(t *testing.T) {
	forEachConn(t, func(t *testing.T, g *grpcPair) {
		for i := range 100 {
			req := bytes.Repeat([]byte{byte(i)}, i*100)
			reply, err := g.call(g.ctx, "Echo", req)
			require.NoError(t, err, "call %d", i)
			require.True(t, bytes.Equal(req, reply), "echo of %d bytes", len(req))
		}
	})
}

func TestGRPCManyCallersOverConn(t *testing.T) {
	forEachConn(t, func(t *testing.T, g *grpcPair) {
		const callers, each = 20, 25
		ended := make(chan error, callers)
		for id := range callers {
			go func() { ended <- g.callMany(id, each) }()
		}
		for range callers {
			require.NoError(t, <-ended)
		}
	})
}

// callMany owns nothing. It ends after n calls or at the first wrong one, and
// returns what was wrong.
func (g *grpcPair) callMany(id, n int) error {
	for i := range n {
		req := []byte{byte(id), byte(i)}
		reply, err := g.call(g.ctx, "Echo", req)
		if err != nil {
			return err
		}
		if !bytes.Equal(req, reply) {
			return errors.New("echo of another call")
		}
	}
	return nil
}

func TestGRPCServerSeesPeerID(t *testing.T) {
	forEachConn(t, func(t *testing.T, g *grpcPair) {
		reply, err := g.call(g.ctx, "Caller", nil)
		require.NoError(t, err)
		require.Equal(t, g.hosts.dialer.ID().String(), string(reply))
	})
}

func TestGRPCServerStreamOverConn(t *testing.T) {
	forEachConn(t, func(t *testing.T, g *grpcPair) {
		s := g.openCount(t)
		close(g.gate)
		requireRest(t, s)
	})
}

func TestGRPCDeadlineOverConn(t *testing.T) {
	forEachConn(t, func(t *testing.T, g *grpcPair) {
		_, err := g.call(g.ctx, "Echo", nil) // the connection is up before the clock runs
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(g.ctx, 50*time.Millisecond)
		defer cancel()
		_, err = g.call(ctx, "Wait", nil)
		require.Equal(t, codes.DeadlineExceeded, status.Code(err), "error %v", err)
		_, err = g.call(g.ctx, "Echo", nil)
		require.NoError(t, err, "the connection outlives a call's deadline")
	})
}

func TestGRPCLargeMessageOverConn(t *testing.T) {
	forEachConn(t, func(t *testing.T, g *grpcPair) {
		req, err := newPayload("random", 3<<20)
		require.NoError(t, err)
		reply, err := g.call(g.ctx, "Echo", req)
		require.NoError(t, err)
		require.True(t, bytes.Equal(req, reply), "echo of %d bytes has %d", len(req), len(reply))
	})
}

func TestGRPCGracefulStopFinishesStreamsOverConn(t *testing.T) {
	forEachConn(t, func(t *testing.T, g *grpcPair) {
		s := g.openCount(t)
		stopped := make(chan struct{})
		go func() { g.server.GracefulStop(); close(stopped) }()
		require.True(t, g.conn.WaitForStateChange(g.ctx, connectivity.Ready), "the client is told to go away")
		close(g.gate)
		requireRest(t, s)
		select {
		case <-stopped:
		case <-g.ctx.Done():
			require.Fail(t, "GracefulStop did not return")
		}
		require.NoError(t, <-g.served)
		_, err := g.call(g.ctx, "Echo", nil)
		require.Equal(t, codes.Unavailable, status.Code(err), "error %v", err)
	})
}
