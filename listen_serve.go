package peerlane

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/handler"
)

// defaultMaxConns is the default of ListenConfig.MaxConns.
const defaultMaxConns = 1024

// Serve serves a tag on a host and calls handler with each conn, in a goroutine of its own, as Host.SetStreamHandler does
// with streams. It returns at once, and fails as ListenConfig.Listen does.
//
// When handler returns, the conn is closed: the peer reads what was written, and then io.EOF. When handler panics or ends
// by runtime.Goexit, the conn is reset with codes.Internal, so that the peer's Read fails with ErrInternal; the panic goes
// to Logger and the process lives. At most MaxConns handlers run at once. Conns beyond wait in the backlog.
//
// The listener's Close ends the conns that are being served; Shutdown waits for their handlers. Accept is not for a
// listener of Serve and always fails with ErrInvalid.
func (c ListenConfig) Serve(h host.Host, tag protocol.ID, handler func(*Conn)) (*Listener, error) {
	if handler == nil {
		return nil, &net.OpError{Op: "listen", Net: Network, Err: invalidf("handler: nil")}
	}
	return c.listen(h, tag, handler)
}

// serve calls the handler with the conns that come. It ends when the listener is closed.
func (l *Listener) serve() {
	places := make(chan struct{}, l.maxConns)
	for {
		select {
		case places <- struct{}{}:
		case <-l.done:
			return
		}
		conn, err := l.accept()
		if err != nil {
			return
		}
		if !l.startServing(conn) {
			conn.resetWith(codes.GoingAway)
			return
		}
		go func() {
			served := &servedConn{listener: l, left: sync.OnceFunc(l.handlers.Done)}
			defer served.left()
			defer func() { <-places }()
			l.serveConn(conn, served)
		}()
	}
}

// A servedConn is a conn's handler as what Shutdown waits for.
type servedConn struct {
	listener *Listener
	left     func() // Shutdown does not wait for it any longer
}

// Exempt makes Shutdown not wait for the handler, which calls it.
func (c *servedConn) Exempt(handler.Kind) { c.left() }

// Is reports whether x is the handler's listener.
func (c *servedConn) Is(x any) bool { return x == any(c.listener) }

// startServing enters a conn among those that Close ends and Shutdown waits for, and reports false if it came too late.
func (l *Listener) startServing(conn *Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.serving[conn] = struct{}{}
	l.handlers.Add(1)
	return true
}

func (l *Listener) serveConn(conn *Conn, served *servedConn) {
	returned := false
	defer func() {
		l.mu.Lock()
		delete(l.serving, conn)
		l.mu.Unlock()
		if returned {
			_ = conn.Close() // never fails
			return
		}
		conn.resetWith(codes.Internal)
		if v := recover(); v != nil {
			l.log.Error("conn handler panicked", "tag", l.tag, "peer", conn.RemotePeer(), "panic", v)
		}
	}()
	handler.Run(served, handler.Conn, func() { l.handler(conn) })
	returned = true
}

// Shutdown stops serving the tag and waits until the handlers of Serve have returned. If ctx ends first, it resets the
// conns that are still served, as Close does, and returns an *Error with the ctx's error, which says how many they were.
// The conns in the backlog are reset at once: no handler has seen them. On a listener without a handler it is Close.
// A handler may call Shutdown, which does not wait for it.
func (l *Listener) Shutdown(ctx context.Context) error {
	if caller := handler.Here(); caller.Of(l) {
		caller.Exempt()
	}
	l.stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.handlers.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	n := l.resetServed()
	return &Error{Op: "shutdown", Link: string(l.tag), Err: fmt.Errorf("%d conns were cut off: %w", n, ctx.Err())}
}

// resetServed resets the conns whose handlers run, and returns how many they were.
func (l *Listener) resetServed() int {
	l.mu.Lock()
	conns := make([]*Conn, 0, len(l.serving))
	for conn := range l.serving {
		conns = append(conns, conn)
	}
	l.mu.Unlock()
	for _, conn := range conns {
		conn.resetWith(codes.GoingAway)
	}
	return len(conns)
}
