package peerlane

import (
	"context"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/pipe"
	"github.com/peerlane/peerlane/session"
)

// openLoopback opens a conn to a listener of the dialer's own host, which libp2p refuses to dial.
func (d *Dialer) openLoopback(ctx context.Context, port uint16, tags []protocol.ID) (*Conn, protocol.ID, error) {
	pid := d.Host.ID()
	if ctx.Err() != nil {
		return nil, "", d.dialError(pid, dialFailed(ctx, "connect", ctx.Err()))
	}
	l := listenerOf(d.Host, tags)
	if l == nil {
		return nil, "", d.dialError(pid, dialFailed(ctx, "negotiate", notServed(tags)))
	}
	near, far := pipe.New()
	if code := l.offer(newLoopbackConn(far, l, l.opts)); code != codes.OK {
		err := &Error{Op: "negotiate", Link: string(l.tag), Remote: true, Code: code, Outcome: session.Rejected}
		return nil, "", d.dialError(pid, err)
	}
	return newLoopbackConn(near, l, connOptions{style: d.AddrStyle, port: port}), l.tag, nil
}

func newLoopbackConn(s *pipe.End, l *Listener, opts connOptions) *Conn {
	pid := l.host.ID()
	return &Conn{
		stream:       s,
		remotePeer:   pid,
		tag:          l.tag,
		local:        styledAddr(opts.style, pid, 0, nil),
		remote:       styledAddr(opts.style, pid, opts.port, nil),
		stopsSending: true,
	}
}
