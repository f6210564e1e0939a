// Package oldpeer is a frozen pointsub v0.0.2: a server and a client that say on the wire what that version said, and that
// have its limits and faults where a peer can see them. It is written from the description of that wire alone and stands on
// raw libp2p streams, so that the tests of compatibility do not test this module's code against itself.
//
// One stream of the plain tag is one call. The request and the response are each a 4-byte big-endian length and so many
// bytes. The server closes after it has answered; the client neither half-closes nor closes. A handler's error is the text
// "处理请求失败: <err>" in an ordinary response.
//
// Do not mend it: it stands for what is out there.
package oldpeer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// What v0.0.2 shipped with.
const (
	ReadTimeout  = 30 * time.Second
	WriteTimeout = 30 * time.Second
	MaxBlockSize = 32 << 20 // of the server; its 4 bytes of header count
	maxResponse  = 8 << 20  // of the client, whatever it was told
	header       = 4
)

// ErrTooLarge is what Client.Send returns at once for a request over its limit.
var ErrTooLarge = errors.New("oldpeer: request too large")

// A Handler answers one request.
type Handler func(request []byte) ([]byte, error)

// A Server serves one tag of a host.
type Server struct {
	host    host.Host
	tag     protocol.ID
	handler Handler
	calls   sync.WaitGroup
}

// Serve starts a server. Close ends it.
func Serve(h host.Host, tag protocol.ID, handler Handler) *Server {
	s := &Server{host: h, tag: tag, handler: handler}
	h.SetStreamHandler(tag, func(stream network.Stream) {
		s.calls.Add(1)
		defer s.calls.Done()
		s.serve(stream)
	})
	return s
}

// Close takes the handler away and waits for the calls that are being served. (v0.0.2's Stop did neither.)
func (s *Server) Close() {
	s.host.RemoveStreamHandler(s.tag)
	s.calls.Wait()
}

// serve answers one call, and closes the stream whatever came of it.
func (s *Server) serve(stream network.Stream) {
	defer func() { _ = stream.Close() }()
	_ = stream.SetReadDeadline(time.Now().Add(ReadTimeout))
	request, err := read(stream, MaxBlockSize-header)
	if err != nil {
		return
	}
	response, err := s.handler(request)
	if err != nil {
		response = []byte("处理请求失败: " + err.Error())
	}
	_ = stream.SetWriteDeadline(time.Now().Add(WriteTimeout))
	_ = write(stream, response)
}

// A Client calls peers. Like v0.0.2's it opens a stream for each call and leaves it open.
type Client struct {
	Host host.Host
	// Close, if set, makes the client close each stream after the response: what v0.0.2 should have done.
	Close bool
}

// Send makes one call, without v0.0.2's retries.
func (c *Client) Send(ctx context.Context, pid peer.ID, tag protocol.ID, request []byte) ([]byte, error) {
	if len(request) > MaxBlockSize {
		return nil, ErrTooLarge
	}
	stream, err := c.Host.NewStream(ctx, pid, tag)
	if err != nil {
		return nil, fmt.Errorf("oldpeer: %w", err)
	}
	response, err := c.call(stream, request)
	if err != nil {
		_ = stream.Reset()
		return nil, fmt.Errorf("oldpeer: %w", err)
	}
	if c.Close {
		_ = stream.Close()
	}
	return response, nil
}

func (c *Client) call(stream network.Stream, request []byte) ([]byte, error) {
	_ = stream.SetWriteDeadline(time.Now().Add(WriteTimeout))
	if err := write(stream, request); err != nil {
		return nil, err
	}
	_ = stream.SetReadDeadline(time.Now().Add(ReadTimeout))
	return read(stream, maxResponse)
}

// write sends a length and body in one Write, as msgio does.
func write(w io.Writer, body []byte) error {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, header+len(body)), uint32(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}

// read takes a length and so many bytes, and leaves what comes after them unread.
func read(r io.Reader, limit int) ([]byte, error) {
	var b [header]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(b[:])
	if uint64(n) > uint64(limit) {
		return nil, fmt.Errorf("message of %d bytes, at most %d", n, limit)
	}
	body := make([]byte, n)
	_, err := io.ReadFull(r, body)
	return body, err
}
