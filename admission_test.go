package peerlane

import (
	"bytes"
	"context"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

// handlerSetter is what a Server and a ServerTag have in common.
type handlerSetter interface {
	session.Registrar
	SetLink(name string, fn func(*session.Message))
	SetDefaultLink(fn func(*session.Message))
	SetDefaultStream(fn func(*session.Stream))
}

// openEverything sets a handler of every kind on at, for every name, each of which says who it is.
func openEverything(at handlerSetter, who string) {
	link := func(m *session.Message) { _ = m.Reply([]byte(who)) }
	stream := func(st *session.Stream) { _, _ = st.Write([]byte(who)) }
	at.SetLink("admin", link)
	at.SetLink("", link)
	at.SetDefaultLink(link)
	at.SetStream("admin", stream)
	at.SetDefaultStream(stream)
	bulk.Handle(at, "bulk", nil, func(l *bulk.Lane) { _, _ = l.Write([]byte(who)) })
	record.Handle(at, "record", nil, func(st *record.Stream) { _ = st.Close() })
}

// doors are the ways into a peer beside the calls of the tag.
func doors() map[string]func(ctx context.Context, s *session.Session) error {
	opener := func(name string, opts *session.StreamOptions) func(context.Context, *session.Session) error {
		return func(ctx context.Context, s *session.Session) error {
			st, err := s.OpenStream(ctx, name, opts)
			if err == nil {
				_ = st.Close()
			}
			return err
		}
	}
	return map[string]func(context.Context, *session.Session) error{
		"a call to a link":  func(ctx context.Context, s *session.Session) error { _, err := s.Call(ctx, "admin", nil); return err },
		"a call to no link": func(ctx context.Context, s *session.Session) error { _, err := s.Call(ctx, "zzz", nil); return err },
		"a message and a reply": func(ctx context.Context, s *session.Session) error {
			_, err := s.SendWait(ctx, "admin", nil)
			return err
		},
		"a large request": func(ctx context.Context, s *session.Session) error {
			_, err := s.Call(ctx, "admin", noise(300<<10))
			return err
		},
		"a stream":            opener("admin", nil),
		"a stream of no name": opener("zzz", nil),
		"a dedicated stream":  opener("admin", &session.StreamOptions{Dedicated: true}),
		"a resumable stream":  opener("admin", &session.StreamOptions{Dedicated: true, Resumable: true}),
		"a shared bulk lane":  opener("bulk", nil),
		"a record stream":     opener("record", nil),
		"a dedicated bulk lane": func(ctx context.Context, s *session.Session) error {
			l, err := bulk.Open(ctx, s, "bulk", &bulk.Options{Mode: bulk.Dedicated, Strands: 2})
			if err == nil {
				_ = l.Close()
			}
			return err
		},
		"a one-way message": func(ctx context.Context, s *session.Session) error {
			if err := s.Send(ctx, "admin", nil); err != nil {
				return err
			}
			return s.Flush(ctx)
		},
	}
}

// requireDoors tries every door, once.
func requireDoors(t *testing.T, s *session.Session, open bool, hint string) {
	t.Helper()
	for name, try := range doors() {
		err := try(t.Context(), s)
		if open {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorIs(t, err, ErrNotAllowed, name)
		require.Contains(t, err.Error(), hint, "%s: the error does not say what to set", name)
	}
	require.NoError(t, s.Err(), "a refusal cost the session")
}

// A server that names nobody, and starts a tag, serves its calls: what is set for its Listen tags, or for the tag, is no stranger's.
func TestStartOpensNothingButItsCallsToStrangers(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		s := newServer(t, b, nil)
		openEverything(s, "server")
		openEverything(s.Tag(callTag), "tag")
		require.ErrorIs(t, s.Listen("/other/1.0.0"), ErrModernPSKRequired)
		require.NoError(t, s.Start(callTag, echoHandler))
		openEverything(s.Tag(callTag), "tag, set later")
		c := newClient(t, a, &ClientConfig{AdmitAll: true})
		own, err := c.Connect(t.Context(), b.ID(), callTag)
		require.NoError(t, err)
		requireDoors(t, own, false, "set a key, AllowPeers or AdmitAll")
		for range 3 {
			got, err := own.Call(t.Context(), "", []byte("x"))
			require.NoError(t, err)
			require.Equal(t, "x", string(got), "the link \"\" is Start's")
			got, err = c.Send(t.Context(), b.ID(), callTag, []byte("y"))
			require.NoError(t, err)
			require.Equal(t, "y", string(got))
		}
	})
}

func TestStartOpensLinksAndStreamsToWhoIsAdmitted(t *testing.T) {
	secret := bytes.Repeat([]byte("k"), 16)
	for name, admit := range map[string]func(t *testing.T, a host.Host, cfg *ServerConfig) func(*Server, *Client){
		"AdmitAll": func(_ *testing.T, _ host.Host, cfg *ServerConfig) func(*Server, *Client) {
			cfg.AdmitAll = true
			return func(*Server, *Client) {}
		},
		"AllowPeers": func(_ *testing.T, a host.Host, cfg *ServerConfig) func(*Server, *Client) {
			cfg.AllowPeers = []peer.ID{a.ID()}
			return func(*Server, *Client) {}
		},
		"a key": func(t *testing.T, _ host.Host, _ *ServerConfig) func(*Server, *Client) {
			return func(s *Server, c *Client) {
				require.NoError(t, UseModernPSKServer(s, secret, cheapPSK))
				require.NoError(t, UseModernPSKClient(c, secret, cheapPSK))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := testnet.Pair(t, testnet.TCPTLS)
			cfg := &ServerConfig{}
			use := admit(t, a, cfg)
			s := newServer(t, b, cfg)
			c := newClient(t, a, &ClientConfig{AdmitAll: true})
			use(s, c)
			openEverything(s, "server")
			require.NoError(t, s.Start(callTag, echoHandler))
			own, err := c.Connect(t.Context(), b.ID(), callTag)
			require.NoError(t, err)
			requireDoors(t, own, true, "")
			got, err := own.Call(t.Context(), "", []byte("x"))
			require.NoError(t, err)
			require.Equal(t, "x", string(got), "the link \"\" is Start's")
		})
	}
}

// A client that only Sends has named nobody either: whom it calls opens nothing on it.
func TestWhoAnswersASendOpensNothingOnAClientThatAdmitsNobody(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, nil)
	require.NoError(t, s.Start(callTag, echoHandler))
	for _, admits := range []bool{false, true} {
		c := newClient(t, a, &ClientConfig{AdmitAll: admits})
		c.SetLink("admin", func(m *session.Message) { _ = m.Reply(nil) })
		c.SetStream("admin", func(*session.Stream) {})
		_, err := c.Send(t.Context(), b.ID(), callTag, nil)
		require.NoError(t, err)
		back := s.Sessions()[0]
		_, callErr := back.Call(t.Context(), "admin", nil)
		st, streamErr := back.OpenStream(t.Context(), "admin", nil)
		if admits {
			require.NoError(t, callErr)
			require.NoError(t, streamErr)
			require.NoError(t, st.Close())
		} else {
			require.ErrorIs(t, callErr, ErrNotAllowed)
			require.ErrorIs(t, streamErr, ErrNotAllowed)
			require.Contains(t, streamErr.Error(), "set a key or AdmitAll")
		}
		require.NoError(t, c.Close())
		waitInfo(t, s, 0)
	}
}

// Links and streams of a tag are that tag's alone; names come before defaults, and the tag before the server.
func TestATagHasHandlersOfItsOwn(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, &ServerConfig{AdmitAll: true})
	say := func(who string) (func(*session.Message), func(*session.Stream)) {
		return func(m *session.Message) { _ = m.Reply([]byte(who)) }, func(st *session.Stream) { _, _ = st.Write([]byte(who)) }
	}
	c := newClient(t, a, &ClientConfig{AdmitAll: true})
	require.NoError(t, s.Listen("/one"))
	require.NoError(t, s.Start("/two", echoHandler))
	connect := func(tag string) *session.Session {
		own, err := c.Connect(t.Context(), b.ID(), protocolID(tag))
		require.NoError(t, err)
		return own
	}
	one, two := connect("/one"), connect("/two")
	ask := func(of *session.Session, name, want string) {
		t.Helper()
		reply, linkErr := of.SendWait(t.Context(), name, nil)
		st, streamErr := of.OpenStream(t.Context(), name, nil)
		if want == "" {
			require.ErrorIs(t, linkErr, ErrNotFound)
			require.ErrorIs(t, streamErr, ErrNotFound)
			return
		}
		require.NoError(t, linkErr)
		require.Equal(t, want, string(reply.Value))
		require.NoError(t, streamErr)
		require.Equal(t, want, string(readAll(t, st)))
	}
	set := func(at handlerSetter, name, who string) {
		link, stream := say(who)
		if name == "" {
			at.SetDefaultLink(link)
			at.SetDefaultStream(stream)
			return
		}
		at.SetLink(name, link)
		at.SetStream(name, stream)
	}
	set(s.Tag("/one"), "x", "one's x")
	ask(one, "x", "one's x")
	ask(two, "x", "")
	set(s, "x", "server's x")
	ask(one, "x", "one's x")
	ask(two, "x", "server's x")
	set(s, "", "server's default")
	ask(one, "y", "server's default")
	set(s.Tag("/one"), "", "one's default")
	ask(one, "y", "one's default")
	ask(two, "y", "server's default")
	set(s, "y", "server's y")
	ask(one, "y", "server's y")
	s.Tag("/one").SetLink("x", nil)
	s.Tag("/one").SetStream("x", nil)
	ask(one, "x", "server's x")
	s.Tag("/one").SetDefaultLink(nil)
	s.Tag("/one").SetDefaultStream(nil)
	ask(one, "z", "server's default")

	s.Tag("/two").SetLink("", func(m *session.Message) { _ = m.Reply([]byte("not Start's")) })
	got, err := two.Call(t.Context(), "", []byte("calls"))
	require.NoError(t, err)
	require.Equal(t, "calls", string(got))
	require.Panics(t, func() { s.Tag("/one").SetLink(string(make([]byte, 256)), func(*session.Message) {}) })
}
