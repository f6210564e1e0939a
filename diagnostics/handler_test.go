package diagnostics

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
)

const token = "0123456789abcdef"

func nothing() Sources { return Sources{} }

// newHandler returns a Handler of a fake process with 40 sessions.
func newHandler(t *testing.T, options *HandlerOptions) *Handler {
	t.Helper()
	h, err := NewHandler(nothing, options)
	require.NoError(t, err)
	t.Cleanup(func() { _ = h.Close() })
	h.take = func() ProcessSnapshot { return fakeProcess(40, 1) }
	h.explain = func(_ context.Context, peer, tag string) (string, error) {
		if peer == "nobody" {
			return "", errors.New("no peer")
		}
		return peer + " " + tag, nil
	}
	return h
}

// ask returns the answer to a request. change, if not nil, changes the request: by default it is one of this machine.
func ask(h http.Handler, method, target string, body string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host, r.RemoteAddr = "localhost:8080", "127.0.0.1:40000"
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// overUnix makes r one that has come over a unix socket.
func overUnix(r *http.Request) {
	r.RemoteAddr, r.Host = "@", "peerlane"
	*r = *r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.UnixAddr{Net: "unix", Name: "/run/x"}))
}

// Claim: diagnostics.HandlerOptions.Token, diagnostics.HandlerOptions.Hosts
func TestWhoIsAnswered(t *testing.T) {
	plain := newHandler(t, nil)
	guarded := newHandler(t, &HandlerOptions{Token: token, Hosts: []string{"Metrics.Example.org"}})
	from := func(addr, host string, headers ...string) func(*http.Request) {
		return func(r *http.Request) {
			r.RemoteAddr, r.Host = addr, host
			for i := 0; i < len(headers); i += 2 {
				r.Header.Set(headers[i], headers[i+1])
			}
		}
	}
	bearer := []string{"Authorization", "Bearer " + token}
	const here, away = "127.0.0.1:5", "192.0.2.7:5"
	for _, c := range []struct {
		name   string
		h      *Handler
		path   string
		change func(*http.Request)
		want   int
	}{
		{"this machine", plain, "/snapshot.json", from(here, "localhost:80"), 200},
		{"by address", plain, "/snapshot.json", from(here, "127.0.0.1:80"), 200},
		{"IPv6", plain, "/snapshot.json", from("[::1]:5", "[::1]:80"), 200},
		{"IPv4 in IPv6", plain, "/snapshot.json", from("[::ffff:127.0.0.1]:5", "localhost"), 200},
		{"a name of loopback", plain, "/", from(here, "node.localhost.:80"), 200},
		{"another machine", plain, "/snapshot.json", from(away, "localhost:80"), 403},
		{"the page from another machine", plain, "/", from(away, "localhost:80"), 403},
		{"no address", plain, "/", from("", "localhost:80"), 403},
		{"a rebound name", plain, "/", from(here, "evil.example:80"), 421},
		{"a rebound name with a port", plain, "/snapshot.json", from(here, "evil.example"), 421},
		{"an address that is not of loopback", plain, "/", from(here, "192.0.2.1"), 421},
		{"no name", plain, "/", from(here, ""), 421},
		{"localhost in another name", plain, "/", from(here, "localhost.evil.example"), 421},
		{"another site's script", plain, "/snapshot.json", from(here, "localhost", "Sec-Fetch-Site", "cross-site"), 403},
		{"another site's image", plain, "/", from(here, "localhost", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"), 403},
		{"another site's link", plain, "/", from(here, "localhost", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"), 200},
		{"a unix socket", plain, "/snapshot.json", overUnix, 200},

		{"no token", guarded, "/snapshot.json", from(away, "192.0.2.1:80"), 401},
		{"no token, this machine", guarded, "/events", from(here, "localhost"), 401},
		{"the page needs none", guarded, "/", from(away, "192.0.2.1:80"), 200},
		{"the token", guarded, "/snapshot.json", from(away, "192.0.2.1:80", bearer...), 200},
		{"another token", guarded, "/snapshot.json", from(away, "192.0.2.1:80", "Authorization", "Bearer 0123456789abcdee"), 401},
		{"the token in another scheme", guarded, "/snapshot.json", from(away, "192.0.2.1:80", "Authorization", token), 401},
		{"the token in the query", guarded, "/snapshot.json?token=" + token, from(away, "192.0.2.1:80"), 401},
		{"part of it", guarded, "/snapshot.json", from(away, "192.0.2.1:80", "Authorization", "Bearer 0123"), 401},
		{"a known name", guarded, "/snapshot.json", from(away, "metrics.example.org", bearer...), 200},
		{"an unknown name", guarded, "/snapshot.json", from(away, "other.example.org", bearer...), 421},
		{"a unix socket needs no token", guarded, "/snapshot.json", overUnix, 200},
	} {
		w := ask(c.h, "GET", c.path, "", c.change)
		require.Equal(t, c.want, w.Code, "%s: %s", c.name, w.Body)
		require.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'; style-src 'self'", c.name)
		require.Equal(t, []string{"nosniff", "no-referrer", "no-store"},
			[]string{w.Header().Get("X-Content-Type-Options"), w.Header().Get("Referrer-Policy"), w.Header().Get("Cache-Control")}, c.name)
		if c.want >= 400 {
			require.NotContains(t, w.Body.String(), "12D3KooW", c.name)
		}
	}
}

func TestNoGETChangesAnything(t *testing.T) {
	h := newHandler(t, &HandlerOptions{Profiles: true})
	for _, path := range []string{"/", "/page.css", "/snapshot.json", "/events", "/debug/pprof/", "/debug/pprof/heap"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
			require.Equal(t, http.StatusMethodNotAllowed, ask(h, method, path, "", nil).Code, "%s %s", method, path)
		}
	}
	require.Equal(t, http.StatusMethodNotAllowed, ask(h, "GET", "/explain", "", nil).Code)
	require.Equal(t, http.StatusNotFound, ask(h, "GET", "/page/index.html", "", nil).Code)
	require.Equal(t, http.StatusNotFound, ask(h, "GET", "/metrics", "", nil).Code, "without the option")
	require.Equal(t, http.StatusNotFound, ask(newHandler(t, nil), "GET", "/debug/pprof/heap", "", nil).Code, "without the option")
	for _, path := range []string{"/main.js", "/map.js", "/sessions.js", "/lists.js", "/text.js", "/page.css", "/icon.svg"} {
		require.Equal(t, http.StatusOK, ask(h, "GET", path, "", nil).Code, path)
	}
}

func TestExplainIsAskedForByThePageAlone(t *testing.T) {
	h := newHandler(t, nil)
	post := func(kind, body string) *httptest.ResponseRecorder {
		return ask(h, "POST", "/explain", body, func(r *http.Request) { r.Header.Set("Content-Type", kind) })
	}
	w := post("application/json", `{"peer":"bob","tag":"/x"}`)
	require.Equal(t, []any{200, "bob /x"}, []any{w.Code, w.Body.String()})
	require.Equal(t, 415, post("text/plain", `{"peer":"bob","tag":"/x"}`).Code, "a form of another site")
	for _, body := range []string{"", "{", `{"peer":"bob"}`, `{"peer":"bob","tag":"/x","more":1}`, `{"peer":"` + strings.Repeat("x", maxAsked) + `","tag":"/x"}`} {
		require.Equal(t, 400, post("application/json", body).Code, "%.40s", body)
	}
	w = post("application/json", `{"peer":"nobody","tag":"/x"}`)
	require.Equal(t, []any{400, "no peer\n"}, []any{w.Code, w.Body.String()})
}

func TestTheSnapshotOfAProcess(t *testing.T) {
	w := ask(newHandler(t, nil), "GET", "/snapshot.json", "", nil)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	var got ProcessSnapshot
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	want := fakeProcess(40, 1)
	want.Summary.Goroutines, want.Summary.Heap = got.Summary.Goroutines, got.Summary.Heap
	require.Equal(t, want, got)
}

func TestAHandlerExplainsWithTheFirstClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		require.NoError(t, p.server.Start(tag, echo))
		all := Sources{Servers: []*peerlane.Server{p.server}}
		h, err := NewHandler(func() Sources { return all }, nil)
		require.NoError(t, err)
		post := func() *httptest.ResponseRecorder {
			return ask(h, "POST", "/explain", `{"peer":"`+p.Bob.ID().String()+`","tag":"`+tag+`"}`, func(r *http.Request) {
				r.Header.Set("Content-Type", "application/json")
			})
		}
		w := post()
		require.Equal(t, []any{400, errNoClient.Error() + "\n"}, []any{w.Code, w.Body.String()})
		all.Clients = []*peerlane.Client{nil, p.client}
		w = post()
		require.Equal(t, 200, w.Code)
		require.Equal(t, Explain(t.Context(), p.client, p.Bob.ID().String(), tag).String(), w.Body.String())
		require.Contains(t, w.Body.String(), "direct")
	})
}

func TestBadOptionsOfAHandler(t *testing.T) {
	for want, o := range map[string]HandlerOptions{
		"Token has 5 bytes, want 16 or more":        {Token: "short"},
		"Interval is 10ms, want 100ms or more":      {Interval: 10 * time.Millisecond},
		"Interval is -1s, want 100ms or more":       {Interval: -time.Second},
		"Hosts[0] is \"a.example:80\", want a name": {Hosts: []string{"a.example:80"}},
		"Hosts[0] is \"\", want a name":             {Hosts: []string{""}},
	} {
		_, err := NewHandler(nothing, &o)
		require.EqualError(t, err, "diagnostics: handler: "+want)
	}
}

func TestBadQueriesAreRefused(t *testing.T) {
	h := newHandler(t, nil)
	for _, q := range []string{"order=colour", "first=-1", "first=x", "count=0", "count=101", "count=99999999999999999999"} {
		require.Equal(t, 400, ask(h, "GET", "/events?"+q, "", nil).Code, q)
	}
}

// Claim: diagnostics.HandlerOptions.Metrics, diagnostics.HandlerOptions.Profiles
func TestMetricsAndProfilesAreServedByOption(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") })
	h := newHandler(t, &HandlerOptions{Metrics: metrics, Profiles: true, Token: token})
	shown := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	require.Equal(t, "up 1\n", ask(h, "GET", "/metrics", "", shown).Body.String())
	require.Contains(t, ask(h, "GET", "/debug/pprof/", "", shown).Body.String(), "goroutine\t")
	require.Contains(t, ask(h, "GET", "/debug/pprof/goroutine?debug=1", "", shown).Body.String(), "TestMetricsAndProfilesAreServedByOption")
	require.Equal(t, "\x1f\x8b", ask(h, "GET", "/debug/pprof/heap", "", shown).Body.String()[:2], "for go tool pprof")
	require.Equal(t, 404, ask(h, "GET", "/debug/pprof/none", "", shown).Code)
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/heap"} {
		require.Equal(t, 401, ask(h, "GET", path, "", nil).Code, path)
	}
	for _, seconds := range []string{"0", "-1", "301", "x", "NaN"} {
		require.Equal(t, 400, ask(h, "GET", "/debug/pprof/profile?seconds="+seconds, "", shown).Code, seconds)
	}
	w := ask(h, "GET", "/debug/pprof/trace?seconds=0.01", "", shown)
	require.True(t, strings.HasPrefix(w.Body.String(), "go 1."), "%.20q", w.Body)
}

// A network in memory: a listener for an http.Server, and what dials it.
type wires struct {
	conns chan net.Conn
	done  chan struct{}
}

func newWires() *wires { return &wires{make(chan net.Conn), make(chan struct{})} }

func (w *wires) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.done:
		return nil, net.ErrClosed
	}
}

func (w *wires) Close() error {
	close(w.done)
	return nil
}

// Addr returns the address of a unix socket: no request over one is refused.
func (w *wires) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "wires"} }

// A wire is a pipe with the address of a unix socket.
type wire struct{ net.Conn }

func (wire) LocalAddr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "wires"} }

// get requests path on a new connection, and returns the connection and a reader of it.
func (w *wires) get(t *testing.T, path string) (net.Conn, *bufio.Reader) {
	t.Helper()
	here, there := net.Pipe()
	w.conns <- wire{there}
	_, err := io.WriteString(here, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
	require.NoError(t, err)
	return here, bufio.NewReader(here)
}

// serve serves h on wires until the test ends.
func serve(t *testing.T, h *Handler) (*wires, *http.Server) {
	w, s := newWires(), &http.Server{Handler: h}
	s.RegisterOnShutdown(func() { _ = h.Close() })
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(w) // net.ErrClosed
	}()
	t.Cleanup(func() {
		require.NoError(t, s.Shutdown(context.Background()))
		<-served
	})
	return w, s
}

// Claim: diagnostics.HandlerOptions.Interval
func TestAPageIsSentAViewEachInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, &HandlerOptions{Interval: 2 * time.Second})
		w, _ := serve(t, h)
		taken := 0
		h.take = func() ProcessSnapshot { taken++; return fakeProcess(40, taken) }
		c, in := w.get(t, "/events?count=10&q=CHAT+direct&order=rtt")
		defer func() { _ = c.Close() }()
		answer, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		require.Equal(t, "text/event-stream", answer.Header.Get("Content-Type"))
		events := bufio.NewReader(answer.Body)
		began := time.Now()
		for n := 1; n <= 3; n++ {
			line, err := events.ReadString('\n')
			require.NoError(t, err)
			var v view
			require.NoError(t, json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &v))
			require.Len(t, v.Sessions, 10)
			require.Equal(t, Duration(time.Duration(n)*time.Second), v.Summary.Uptime)
			require.Equal(t, time.Duration(n-1)*2*time.Second, time.Since(began))
			_, err = events.ReadString('\n')
			require.NoError(t, err)
		}
		require.NoError(t, h.Close())
		_, err = events.ReadByte()
		require.ErrorIs(t, err, io.EOF, "Close ends it")
	})
}

func TestPagesShareSnapshotsAndAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, nil)
		w, _ := serve(t, h)
		taken := 0
		h.take = func() ProcessSnapshot { taken++; return fakeProcess(40, taken) }
		var all []net.Conn
		for range maxViews {
			c, in := w.get(t, "/events")
			go func() { _, _ = io.Copy(io.Discard, in) }() // ends with c
			all = append(all, c)
		}
		synctest.Wait()
		c, in := w.get(t, "/events")
		answer, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		require.Equal(t, []any{503, "5"}, []any{answer.StatusCode, answer.Header.Get("Retry-After")})
		_ = c.Close()
		time.Sleep(10*time.Second - time.Millisecond)
		require.Equal(t, 10, taken)
		require.NoError(t, all[0].Close())
		time.Sleep(2 * time.Second)
		c, in = w.get(t, "/events")
		answer, err = http.ReadResponse(in, nil)
		require.NoError(t, err)
		require.Equal(t, 200, answer.StatusCode, "the place of one that has left")
		for _, c := range append(all, c) {
			_ = c.Close()
		}
		require.NoError(t, h.Close())
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Nil(t, h.last, "nothing is kept")
		require.Empty(t, h.views)
	})
}

func TestAPageThatDoesNotReadIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, nil)
		w, _ := serve(t, h)
		deaf, _ := w.get(t, "/events") // nothing reads it
		defer func() { _ = deaf.Close() }()
		synctest.Wait()
		require.Len(t, h.views, 1)
		c, in := w.get(t, "/snapshot.json")
		answer, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		require.Equal(t, 200, answer.StatusCode, "others are answered meanwhile")
		_, err = io.Copy(io.Discard, answer.Body)
		require.NoError(t, err)
		_ = c.Close()
		time.Sleep(writeTime + time.Second)
		require.Empty(t, h.views, "it has left")
	})
}
