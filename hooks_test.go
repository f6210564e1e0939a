package peerlane

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/oldpeer"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// A hookLog records the hooks of sessions.
type hookLog struct {
	mu     sync.Mutex
	all    []string
	closed chan struct{} // a token for each OnClose
}

func newHookLog() *hookLog { return &hookLog{closed: make(chan struct{}, 16)} }

func (l *hookLog) add(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, name)
}

func (l *hookLog) get() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

// hooks returns hooks that record their calls.
func (l *hookLog) hooks() *Hooks {
	return &Hooks{
		OnOpen:        func(*session.Session) error { l.add("open"); return nil },
		OnMessage:     func(_ *session.Session, m *session.Message) { l.add("message " + m.Link) },
		OnStateChange: func(_ *session.Session, c session.StateChange) { l.add(string(c.State)) },
		OnLaneOpen:    func(_ *session.Session, lane session.Lane) { l.add(lane.Kind + " " + lane.Name) },
		OnLaneClose:   func(_ *session.Session, lane session.Lane) { l.add("end of " + lane.Name) },
		OnError: func(_ *session.Session, err error) {
			l.add("error " + map[bool]string{true: "lost", false: err.Error()}[errors.Is(err, session.ErrSessionLost)])
		},
		OnClose: func(*session.Session) { l.add("close"); l.closed <- struct{}{} },
	}
}

// The order of the hooks of both sides, for each way in which a session ends, over a network of real hosts. Row: G4
// Claim: peerlane.ClientConfig.Hooks, peerlane.ServerConfig.Hooks
func TestTheOrderOfHooksOnRealHosts(t *testing.T) {
	t.Parallel()
	begun := []string{"open", "connected"}
	quietly, badly := []string{"ended", "close"}, []string{"ended", "error lost", "close"}
	for _, c := range []struct {
		name                   string
		resumes                bool
		end                    func(t *testing.T, f faultnet.Fault, client, server *session.Session)
		wantClient, wantServer []string // after begun and, at the server, "message hello"; "detached" is left out, since either side may see it first
	}{
		{"the peer closes", true, func(_ *testing.T, _ faultnet.Fault, _, server *session.Session) { _ = server.Close() }, quietly, quietly},
		{"closed here", true, func(_ *testing.T, _ faultnet.Fault, client, _ *session.Session) { _ = client.Close() }, quietly, quietly},
		{"the peer resets", true, func(_ *testing.T, _ faultnet.Fault, _, server *session.Session) { server.Abort() }, badly, quietly},
		{"the connection breaks", false, func(_ *testing.T, f faultnet.Fault, _, _ *session.Session) { f.Cut() }, badly, badly},
		{"the peer is silent", false, func(_ *testing.T, f faultnet.Fault, _, _ *session.Session) { f.Freeze() }, badly, badly},
		{"the peer vanishes", true, func(_ *testing.T, f faultnet.Fault, _, _ *session.Session) { f.Vanish(true) }, badly, badly},
		{"a handler panics", true, func(t *testing.T, _ faultnet.Fault, client, _ *session.Session) {
			_, err := client.SendWait(t.Context(), "panic", nil)
			require.ErrorIs(t, err, session.ErrInternal)
			_ = client.Close()
		}, quietly, append([]string{"message panic"}, quietly...)},
		{"a handler ends its goroutine", true, func(t *testing.T, _ faultnet.Fault, client, _ *session.Session) {
			_, err := client.SendWait(t.Context(), "exit", nil)
			require.ErrorIs(t, err, session.ErrNoReply)
			_ = client.Close()
		}, quietly, append([]string{"message exit"}, quietly...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			onProxied(t, func(t *testing.T, a, b host.Host, f faultnet.Fault, _ testnet.Transport) {
				clientLog, serverLog := newHookLog(), newHookLog()
				clientCfg, serverCfg := lasting()
				clientCfg.Hooks, serverCfg.Hooks = clientLog.hooks(), serverLog.hooks()
				clientCfg.ResumeWindow, serverCfg.ResumeWindow = quick, quick
				if !c.resumes {
					clientCfg.ResumeWindow = -1
				}
				server := newServer(t, b, serverCfg)
				server.SetLink("hello", func(*session.Message) {})
				server.SetLink("panic", func(*session.Message) { panic("boom") })
				server.SetLink("exit", func(*session.Message) { runtime.Goexit() })
				require.NoError(t, server.Listen(callTag))
				s, err := newClient(t, a, clientCfg).Connect(testContext(t), b.ID(), callTag)
				require.NoError(t, err)
				require.NoError(t, s.Send(t.Context(), "hello", nil))
				require.NoError(t, s.Flush(testContext(t)))
				c.end(t, f, s, server.Sessions()[0])
				await(t, clientLog.closed, "the client's OnClose")
				await(t, serverLog.closed, "the server's OnClose")
				seen := func(l *hookLog) []string {
					return slices.DeleteFunc(l.get(), func(name string) bool { return name == "detached" })
				}
				require.Equal(t, append(slices.Clone(begun), c.wantClient...), seen(clientLog))
				require.Equal(t, append(append(slices.Clone(begun), "message hello"), c.wantServer...), seen(serverLog))
			})
		})
	}
}

// A session that OnOpen refuses: its peer learns why, Send does not try again, and nothing is handled. Row: G1, G3
func TestOnOpenRefusesSessionsOnRealHosts(t *testing.T) {
	t.Parallel()
	for _, tr := range muxes {
		t.Run(string(tr), func(t *testing.T) {
			t.Parallel()
			a, b := testnet.Pair(t, tr)
			log := newHookLog()
			cfg := DefaultServerConfig()
			cfg.AdmitAll, cfg.Hooks = true, log.hooks()
			var asked atomic.Int32
			cfg.Hooks.OnOpen = func(s *session.Session) error {
				asked.Add(1)
				require.Equal(t, a.ID().String(), s.Peer())
				require.NotEmpty(t, PathOf(s).Transport)
				return &Error{Code: codes.NotAllowed, Text: "members only"}
			}
			refused := make(chan session.Refusal, 16)
			cfg.Hooks.OnRefuse = func(r session.Refusal) { refused <- r }
			server := newServer(t, b, cfg)
			require.NoError(t, server.Start(callTag, func([]byte) ([]byte, error) { t.Error("handled"); return nil, nil }))
			clientLog := newHookLog()
			clientCfg := patientClient()
			clientCfg.AdmitAll, clientCfg.Hooks = true, clientLog.hooks()
			c := newClient(t, a, clientCfg)
			_, err := c.Send(testContext(t), b.ID(), callTag, []byte("x"))
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Contains(t, []session.Outcome{session.Rejected, session.NotSent}, e.Outcome, "the session may have ended before the call")
			require.ErrorIs(t, err, ErrNotAllowed)
			require.ErrorContains(t, err, "members only")
			require.EqualValues(t, 1, asked.Load())
			r := await(t, refused, "OnRefuse")
			require.Equal(t, []string{"session", a.ID().String(), string(callTag)}, []string{r.Kind, r.Peer, r.Tag})
			require.ErrorIs(t, r.Err, ErrNotAllowed)
			await(t, clientLog.closed, "the client's OnClose")
			got := clientLog.get()
			require.Equal(t, []string{"open", "connected", "ended"}, got[:3])
			require.Contains(t, got[3], "members only")
			require.Equal(t, "close", got[4])
			require.Empty(t, log.get())

			s, err := c.Connect(testContext(t), b.ID(), callTag)
			if err == nil {
				await(t, s.Done(), "the end of the session")
				err = s.Err()
			}
			require.ErrorIs(t, err, ErrNotAllowed)
			require.ErrorContains(t, err, "members only")
		})
	}
}

// OnRetry reports the attempts of Send, of keepers and of sessions that look for a carrier.
// Claim: session.Hooks.OnRetry, session.Retry.Op, session.Retry.Peer, session.Retry.Tag, session.Retry.Session, session.Retry.Attempt
// Claim: session.Retry.Wait, session.Retry.Err
func TestRetriesAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, nil)
		cfg := DefaultClientConfig()
		cfg.AdmitAll, cfg.MaxRetries, cfg.ResumeWindow, cfg.ConnectTimeout = true, 2, 20*time.Second, time.Second
		var mu sync.Mutex
		all := make(map[string][]session.Retry)
		cfg.Hooks = &Hooks{OnRetry: func(r session.Retry) {
			mu.Lock()
			defer mu.Unlock()
			all[r.Op] = append(all[r.Op], r)
		}}
		got := func(op string) []session.Retry {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(all[op])
		}
		server := newServer(t, h.Bob, &ServerConfig{AdmitAll: true})
		require.NoError(t, server.Listen("/resumes"))
		c := newClient(t, h.Alice, cfg)
		s, err := c.Connect(t.Context(), h.Bob.ID(), "/resumes")
		require.NoError(t, err)
		h.Vanish(true)
		_, err = c.Send(t.Context(), h.Bob.ID(), "/send", nil)
		require.Error(t, err)
		synctest.Wait()
		sends := got("send")
		require.Len(t, sends, 2)
		for i, r := range sends {
			require.Equal(t, []any{h.Bob.ID().String(), "/send", i + 1}, []any{r.Peer, r.Tag, r.Attempt})
			require.Nil(t, r.Session)
			require.Positive(t, r.Wait)
			require.Error(t, r.Err)
		}
		<-s.Done()
		synctest.Wait()
		require.NotEmpty(t, got("resume"))
		for _, r := range got("resume") {
			require.Equal(t, s, r.Session)
			require.Equal(t, []string{h.Bob.ID().String(), "/resumes"}, []string{r.Peer, r.Tag})
			require.Error(t, r.Err)
			require.Positive(t, r.Attempt)
		}
		k, err := c.Keep(h.Bob.ID(), "/keep", nil)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.NotEmpty(t, got("keep"))
		require.Equal(t, "/keep", got("keep")[0].Tag)
		_ = k.Close()
	})
}

// Claim: session.Hooks.OnRefuse, session.Refusal.Kind, session.Refusal.Name, session.Refusal.Peer, session.Refusal.Tag, session.Refusal.Session
// Claim: session.Refusal.Err
func TestRefusalsAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, nil)
		refused := make(chan session.Refusal, 16)
		hooks := &Hooks{OnRefuse: func(r session.Refusal) { refused <- r }}
		server := newServer(t, h.Bob, &ServerConfig{AdmitAll: true, Hooks: hooks})
		require.NoError(t, server.Listen("/t"))
		s, err := newClient(t, h.Alice, &ClientConfig{AdmitAll: true}).Connect(t.Context(), h.Bob.ID(), "/t")
		require.NoError(t, err)
		_, err = s.Call(t.Context(), "nobody", nil)
		require.ErrorIs(t, err, ErrNotFound)
		require.NoError(t, s.Send(t.Context(), "no link", nil))
		_, err = s.OpenStream(t.Context(), "no stream", nil)
		require.ErrorIs(t, err, ErrNotFound)
		for _, want := range []string{"call nobody", "message no link", "stream no stream"} {
			r := <-refused
			require.Equal(t, want, r.Kind+" "+r.Name)
			require.Equal(t, []string{h.Alice.ID().String(), "/t"}, []string{r.Peer, r.Tag})
			require.Equal(t, server.Sessions()[0], r.Session)
			require.ErrorIs(t, r.Err, ErrNotFound)
		}
		allowed := newServer(t, h.Bob, &ServerConfig{AllowPeers: nil, Hooks: hooks})
		allowed.allow = map[string]bool{}
		require.NoError(t, allowed.Listen("/closed"))
		_, err = newClient(t, h.Alice, &ClientConfig{AdmitAll: true}).Connect(t.Context(), h.Bob.ID(), "/closed")
		require.ErrorIs(t, err, ErrNotAllowed)
		r := <-refused
		require.Equal(t, "carrier", r.Kind)
		require.Nil(t, r.Session)
		require.ErrorIs(t, r.Err, ErrNotAllowed)
	})
}

// Claim: session.Hooks.OnLaneOpen, session.Hooks.OnLaneClose, session.Lane.Kind, session.Lane.Name, session.Lane.Local, session.Lane.Dedicated
func TestLanesAreReportedOnBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, nil)
		var mu sync.Mutex
		var got []string
		hooks := func(side string) *Hooks {
			note := func(verb string) func(*session.Session, session.Lane) {
				return func(_ *session.Session, l session.Lane) {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, fmt.Sprint(side, " ", verb, " ", l.Kind, " ", l.Name, " local=", l.Local, " dedicated=", l.Dedicated))
				}
			}
			return &Hooks{OnLaneOpen: note("open"), OnLaneClose: note("close")}
		}
		server := newServer(t, h.Bob, &ServerConfig{AdmitAll: true, Hooks: hooks("bob")})
		server.SetDefaultStream(func(*session.Stream) {})
		require.NoError(t, server.Listen("/t"))
		s, err := newClient(t, h.Alice, &ClientConfig{AdmitAll: true, Hooks: hooks("alice")}).Connect(t.Context(), h.Bob.ID(), "/t")
		require.NoError(t, err)
		for name, opts := range map[string]*session.StreamOptions{"shared": nil, "dedicated": {Dedicated: true},
			"resumable": {Dedicated: true, Resumable: true}} {
			st, err := s.OpenStream(t.Context(), name, opts)
			require.NoError(t, err)
			_ = st.Close()
			time.Sleep(time.Minute)
			for _, side := range []string{"alice", "bob"} {
				for _, verb := range []string{"open", "close"} {
					want := fmt.Sprint(side, " ", verb, " stream ", name, " local=", side == "alice", " dedicated=", opts != nil)
					mu.Lock()
					require.Equal(t, 1, len(slices.DeleteFunc(slices.Clone(got), func(line string) bool { return line != want })), "%s\n%q", want, got)
					mu.Unlock()
				}
			}
		}
		_, err = s.OpenStream(t.Context(), "left open", &session.StreamOptions{Dedicated: true})
		require.NoError(t, err)
		_ = s.Close()
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, got, 16, "%q", got)
	})
}

// Interceptors of clients and servers see the calls of sessions and of pointsub's wire, and those of a tag come after those of the server.
func TestInterceptorsOfClientsAndServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, nil)
		var mu sync.Mutex
		var got []string
		note := func(name string) Interceptor {
			return func(ctx context.Context, x *Exchange, next func(context.Context) error) error {
				mu.Lock()
				got = append(got, fmt.Sprint(name, " ", x.Tag, " ", string(x.Value), " inbound=", x.Inbound, " session=", x.Session != nil))
				mu.Unlock()
				if string(x.Value) == "bad "+name {
					return &Error{Code: codes.NotAllowed, Text: name + " does not let it pass"}
				}
				if string(x.Value) == "own "+name {
					return errors.New("not today")
				}
				return next(ctx)
			}
		}
		take := func() []string {
			mu.Lock()
			defer mu.Unlock()
			all := got
			got = nil
			return all
		}
		server := newServer(t, h.Bob, nil)
		server.Intercept(note("server"))
		server.Tag("/t").Intercept(note("tag"))
		require.NoError(t, server.Start("/t", echoHandler))
		c := newClient(t, h.Alice, patientClient())
		c.Intercept(note("client"))
		_, err := c.Send(t.Context(), h.Bob.ID(), "/t", []byte("x"))
		require.NoError(t, err)
		require.Equal(t, []string{"client /t x inbound=false session=true", "server /t x inbound=true session=true", "tag /t x inbound=true session=true"}, take())
		for _, who := range []string{"server", "tag"} {
			_, err = c.Send(t.Context(), h.Bob.ID(), "/t", []byte("bad "+who))
			require.ErrorIs(t, err, ErrNotAllowed)
			requireTyped(t, err, session.Rejected)
		}
		_, err = c.Send(t.Context(), h.Bob.ID(), "/t", []byte("bad client"))
		require.ErrorIs(t, err, ErrNotAllowed)
		_, err = c.Send(t.Context(), h.Bob.ID(), "/t", []byte("own client"))
		require.ErrorContains(t, err, "not today")
		requireTyped(t, err, session.Rejected)
		take()

		old := &oldpeer.Client{Host: h.Alice}
		_, err = old.Send(t.Context(), h.Bob.ID(), "/t", []byte("old"))
		require.NoError(t, err)
		require.Equal(t, []string{"server /t old inbound=true session=false", "tag /t old inbound=true session=false"}, take())
		refusal, err := old.Send(t.Context(), h.Bob.ID(), "/t", []byte("bad tag"))
		require.NoError(t, err)
		require.Contains(t, string(refusal), "tag does not let it pass", "an error is text on this wire")
		take()

		oldpeer.Serve(h.Bob, "/old", echoHandler)
		answer, err := c.Send(t.Context(), h.Bob.ID(), "/old", []byte("x"))
		require.NoError(t, err)
		require.Equal(t, "x", string(answer))
		require.Equal(t, []string{"client /old x inbound=false session=false"}, take())
		for range 200 { // more than there are places for such calls
			_, err = c.Send(t.Context(), h.Bob.ID(), "/old", []byte("own client"))
			requireTyped(t, err, session.Rejected)
		}
	})
}

// A client and a server may be closed from a hook of theirs.
func TestHooksCloseClientsAndServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, nil)
		done := make(chan time.Duration, 2)
		var server *Server
		server = newServer(t, h.Bob, &ServerConfig{AdmitAll: true, Hooks: &Hooks{OnMessage: func(_ *session.Session, m *session.Message) {
			if m.Link == "stop" {
				began := time.Now()
				_ = server.Stop()
				done <- time.Since(began)
			}
		}}})
		server.SetDefaultLink(func(*session.Message) {})
		require.NoError(t, server.Listen("/t"))
		var c *Client
		c = newClient(t, h.Alice, &ClientConfig{AdmitAll: true, Hooks: &Hooks{OnStateChange: func(_ *session.Session, change session.StateChange) {
			if change.State == session.StateEnded {
				began := time.Now()
				_ = c.Close()
				done <- time.Since(began)
			}
		}}})
		s, err := c.Connect(t.Context(), h.Bob.ID(), "/t")
		require.NoError(t, err)
		require.NoError(t, s.Send(t.Context(), "stop", nil))
		time.Sleep(time.Hour)
		require.Len(t, done, 2)
		for range 2 {
			require.Less(t, <-done, 3*time.Second)
		}
	})
}

func TestHooksOfConfigsAreValidated(t *testing.T) {
	bad := &Hooks{Workers: -1}
	for name, err := range map[string]error{"ClientConfig.Hooks.Workers": (&ClientConfig{Hooks: bad}).Validate(),
		"ServerConfig.Hooks.Workers": (&ServerConfig{Hooks: bad}).Validate()} {
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, name)
	}
}
