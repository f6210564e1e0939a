package peerlane

import (
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/session"
)

// errCallsOnly refuses what is no call of the tag where the application has not said who is admitted.
var errCallsOnly = &session.Error{Code: codes.NotAllowed,
	Text: "only the calls of this tag are open to everyone: for links and streams, set a key, AllowPeers or AdmitAll on this side"}

// errSendsOnly is the same on the side that calls.
var errSendsOnly = &session.Error{Code: codes.NotAllowed,
	Text: "this side only calls: for links and streams, set a key or AdmitAll on this side"}

// SetLink sets the handler of messages, one-way or not, to the link name on all tags, or on those of Listen alone where Start serves
// everyone: see Start. A handler of the tag's own comes before: see Tag. Nil unsets it. It panics if name is longer than 255 bytes.
func (s *Server) SetLink(name string, fn func(*session.Message)) { s.mux.SetLink(name, fn) }

// SetDefaultLink sets the handler of messages to links without a handler, on the tags of SetLink. Nil unsets it.
func (s *Server) SetDefaultLink(fn func(*session.Message)) { s.mux.SetDefaultLink(fn) }

// SetStream sets the handler of streams opened under name on the tags of SetLink. Nil unsets it. The stream is closed when fn returns. It
// panics if name is longer than 255 bytes.
func (s *Server) SetStream(name string, fn func(*session.Stream)) { s.mux.SetStream(name, fn) }

// SetDefaultStream sets the handler of streams without a handler, on the tags of SetLink. Nil unsets it.
func (s *Server) SetDefaultStream(fn func(*session.Stream)) { s.mux.SetDefaultStream(fn) }

// A ServerTag sets handlers for one tag of a Server. It is a session.Registrar: record.Handle, bulk.Handle and transfer.Service.Handle take
// it in place of the server. It is safe for concurrent use.
type ServerTag struct{ mux *session.Mux }

// Tag returns tag, for handlers that no other tag has. They may be set before the tag is served and at any time after. Like the server's,
// they are closed to strangers: see Start.
//
// A link is looked for in this order: the handler of Start, which has the link "" to itself; the tag's of that name; the server's of that
// name; the tag's default; the server's default. So it is with streams, which Start has nothing to do with.
func (s *Server) Tag(tag protocol.ID) *ServerTag {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &ServerTag{s.muxLocked(tag)}
}

// muxLocked returns the handlers of tag. s.mu is held.
func (s *Server) muxLocked(tag protocol.ID) *session.Mux {
	mux := s.muxes[tag]
	if mux == nil {
		mux = s.mux.Child()
		s.muxes[tag] = mux
	}
	return mux
}

// SetLink is Server.SetLink for this tag alone.
func (t *ServerTag) SetLink(name string, fn func(*session.Message)) { t.mux.SetLink(name, fn) }

// SetDefaultLink is Server.SetDefaultLink for this tag alone.
func (t *ServerTag) SetDefaultLink(fn func(*session.Message)) { t.mux.SetDefaultLink(fn) }

// SetStream is Server.SetStream for this tag alone.
func (t *ServerTag) SetStream(name string, fn func(*session.Stream)) { t.mux.SetStream(name, fn) }

// SetDefaultStream is Server.SetDefaultStream for this tag alone.
func (t *ServerTag) SetDefaultStream(fn func(*session.Stream)) { t.mux.SetDefaultStream(fn) }
