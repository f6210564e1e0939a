package peerlane

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/session"
)

// Hooks are functions that a Client or a Server calls when something happens: see ClientConfig.Hooks, ServerConfig.Hooks and docs/SESSIONS.md.
type Hooks = session.Hooks

// Interceptor stands before calls and messages, in both directions: see Client.Intercept and Server.Intercept.
type Interceptor = session.Interceptor

// Exchange is a call or message on its way through Interceptors.
type Exchange = session.Exchange

// Intercept adds interceptors to the client's sessions. They stand before each attempt of Send, before other calls and messages of the client, and
// before those that peers send back. The first one added is called first. They apply from now on.
func (c *Client) Intercept(interceptors ...Interceptor) { c.mux.Intercept(interceptors...) }

// Intercept adds interceptors to all tags of the server. They stand before the calls and messages of its peers, pointsub v0.0.2 peers too, and before
// those that are sent back. The first one added is called first. They apply from now on.
func (s *Server) Intercept(interceptors ...Interceptor) { s.mux.Intercept(interceptors...) }

// Intercept is Server.Intercept for this tag alone. They come after those of the server.
func (t *ServerTag) Intercept(interceptors ...Interceptor) { t.mux.Intercept(interceptors...) }

// legacyThrough runs a call over pointsub's wire, which has no session, behind the interceptors of mux.
func legacyThrough(ctx context.Context, mux *session.Mux, pid peer.ID, tag protocol.ID, inbound bool, value []byte,
	call func(ctx context.Context, value []byte) ([]byte, error)) ([]byte, error) {
	x := &Exchange{Peer: pid.String(), Tag: string(tag), Inbound: inbound, Value: value}
	err := mux.Through(ctx, x, func(ctx context.Context) (err error) {
		x.Reply, err = call(ctx, x.Value)
		return err
	})
	if err != nil {
		return nil, err
	}
	return x.Reply, nil
}
