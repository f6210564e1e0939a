package diagnostics

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// request sends the head of a request on a new connection, without reading the answer.
func (w *wires) request(t *testing.T, path string) net.Conn {
	t.Helper()
	c, _ := w.get(t, path)
	return c
}

// A client that does not read its answer holds a goroutine and a connection for a bounded time, on each path.
func TestAClientThatDoesNotReadIsDropped(t *testing.T) {
	for path, within := range map[string]time.Duration{
		"/": answerTime, "/main.js": answerTime, "/none": answerTime, "/metrics": answerTime, "/snapshot.json": writeTime, "/events": writeTime,
		"/debug/pprof/": answerTime, "/debug/pprof/goroutine?debug=2": answerTime,
	} {
		synctest.Test(t, func(t *testing.T) {
			metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, strings.Repeat("up 1\n", 10_000))
			})
			h := newHandler(t, &HandlerOptions{Metrics: metrics, Profiles: true})
			w := newWires()
			dropped := make(chan struct{})
			s := &http.Server{Handler: h, ConnState: func(_ net.Conn, state http.ConnState) {
				if state == http.StateClosed {
					close(dropped)
				}
			}}
			served := make(chan struct{})
			go func() {
				defer close(served)
				_ = s.Serve(w) // http.ErrServerClosed
			}()
			deaf := w.request(t, path)
			began := time.Now()
			select {
			case <-dropped:
			case <-time.After(10 * answerTime):
				t.Errorf("%s: it is still served", path)
			}
			require.LessOrEqual(t, time.Since(began), within+time.Second, path)
			_ = deaf.Close()
			require.NoError(t, s.Close())
			<-served
		})
	}
}

// Only one profile of a kind can run in a process: a client that does not read it must not keep the next one from being taken.
func TestAProfileThatIsNotReadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, &HandlerOptions{Profiles: true})
		w := newWires()
		ended := make(chan time.Duration)
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // a fake: package trace cannot run in a bubble
			began := time.Now()
			stopped, written := make(chan struct{}), make(chan struct{})
			h.runProfile(w, r, time.Second, func() error {
				go func() {
					defer close(written)
					for {
						_, _ = w.Write(make([]byte, 64<<10)) // as package trace does, whether or not the client reads
						select {
						case <-stopped:
							return
						case <-time.After(time.Second):
						}
					}
				}()
				return nil
			}, func() {
				close(stopped)
				<-written
			})
			ended <- time.Since(began)
		})}
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = s.Serve(w) // http.ErrServerClosed
		}()
		deaf := w.request(t, "/debug/pprof/trace?seconds=240")
		defer func() { _ = deaf.Close() }()
		require.Less(t, <-ended, 5*time.Minute)
		other := w.request(t, "/debug/pprof/trace?seconds=240")
		defer func() { _ = other.Close() }()
		synctest.Wait()
		require.NoError(t, h.Close())
		require.LessOrEqual(t, <-ended, writeTime+time.Second, "Close ends it")
		require.NoError(t, s.Close())
		<-served
	})
}

func TestALongProfileIsReadToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, &HandlerOptions{Profiles: true})
		w := newWires()
		wrote := make(chan error)
		s := &http.Server{Handler: h}
		h.mux = http.NewServeMux()
		h.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			h.runProfile(w, r, 0, func() error {
				go func() { // as package trace does
					time.Sleep(2 * answerTime)
					_, err := w.Write(make([]byte, 1<<20))
					wrote <- err
				}()
				return nil
			}, func() {})
		})
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = s.Serve(w) // http.ErrServerClosed
		}()
		c, in := w.get(t, "/debug/pprof/profile?seconds=240")
		go func() { _, _ = io.Copy(io.Discard, in) }() // ends with c
		require.NoError(t, <-wrote)
		_ = c.Close()
		require.NoError(t, s.Close())
		<-served
	})
}

// Over HTTP/2 a deadline that passes resets the stream, though nothing waits to be written.
func TestAPageOfALongIntervalStaysOpen(t *testing.T) {
	var deadlines []time.Time
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, &HandlerOptions{Interval: time.Minute})
		ctx, cancel := context.WithCancel(t.Context())
		r := httptest.NewRequest(http.MethodGet, "/events", nil).WithContext(ctx)
		r.Host, r.RemoteAddr = "localhost", "127.0.0.1:5"
		done := make(chan struct{})
		go func() {
			defer close(done)
			h.ServeHTTP(&timed{ResponseRecorder: httptest.NewRecorder(), deadlines: &deadlines}, r)
		}()
		synctest.Wait()
		cancel()
		<-done
	})
	require.True(t, slices.ContainsFunc(deadlines, func(at time.Time) bool { return !at.IsZero() }), "while it writes")
	require.True(t, deadlines[len(deadlines)-1].IsZero(), "none while it waits")
}

// timed records the deadlines that are set.
type timed struct {
	*httptest.ResponseRecorder
	deadlines *[]time.Time
}

func (t *timed) SetWriteDeadline(at time.Time) error {
	*t.deadlines = append(*t.deadlines, at)
	return nil
}

func TestExplanationsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, nil)
		h.explain = func(ctx context.Context, _, _ string) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}
		post := func() *httptest.ResponseRecorder {
			return ask(h, "POST", "/explain", `{"peer":"bob","tag":"/x"}`, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") })
		}
		for range maxExplains {
			go post() // ends after explainTime
		}
		synctest.Wait()
		w := post()
		require.Equal(t, []any{503, "5"}, []any{w.Code, w.Header().Get("Retry-After")})
		time.Sleep(explainTime)
		synctest.Wait()
		require.Empty(t, h.asking)
	})
}

func TestSnapshotsInProgressAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, nil)
		w, _ := serve(t, h)
		var all []net.Conn
		for range maxTexts + 1 {
			all = append(all, w.request(t, "/snapshot.json"))
		}
		synctest.Wait()
		require.Len(t, h.texts, maxTexts)
		require.NoError(t, all[maxTexts].Close())
		synctest.Wait()
		time.Sleep(2 * writeTime)
		require.Empty(t, h.texts, "those that do not read are dropped, and one that has gone does not wait")
		for _, c := range all {
			_ = c.Close()
		}
	})
}

func TestASearchIsBounded(t *testing.T) {
	h := newHandler(t, nil)
	require.Equal(t, 400, ask(h, "GET", "/events?q="+strings.Repeat("a+", maxSearch/2)+"b", "", nil).Code)
	_, err := parseQuery(map[string][]string{"q": {strings.Repeat("b", maxSearch)}})
	require.NoError(t, err)
}

// A page on another port of this machine is the same site to a browser, and another one to this server.
func TestPagesOfOtherPortsAreNotAnswered(t *testing.T) {
	h := newHandler(t, nil)
	for site, want := range map[string]int{"same-site": 403, "cross-site": 403, "same-origin": 200, "none": 200} {
		require.Equal(t, want, ask(h, "GET", "/snapshot.json", "", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", site) }).Code, site)
	}
}

// A peer may open as many streams as it is let, and each may be in a limit that is nearly used up.
func TestWhatAPeerOpensDoesNotMakeAViewLarge(t *testing.T) {
	p := fakeProcess(maxRows, 3)
	for i := range p.Servers[0].Sessions {
		s := &p.Servers[0].Sessions[i]
		for n := range 2000 {
			s.Streams = append(s.Streams, StreamSnapshot{ID: uint64(n), Name: strings.Repeat("<", 20)})
		}
		s.Records, s.Bulk = slices.Repeat(s.Records, 2000), slices.Repeat(s.Bulk, 2000)
		s.Transfers = slices.Repeat(p.Transfers, 2000)
	}
	p.Summary.Warnings = make([]Limit, 10_000)
	v := viewOf(&p, query{order: "peer", count: maxRows})
	for _, s := range v.Sessions {
		require.Equal(t, []int{maxLanes, maxLanes, maxLanes, maxLanes}, []int{len(s.Streams), len(s.Records), len(s.Bulk), len(s.Transfers)})
		require.Equal(t, map[string]int{"streams": 1951, "records": 1950, "bulk": 1950, "transfers": 1950}, s.More)
		require.EqualValues(t, 1999, s.Streams[maxLanes-1].ID, "the newest stay")
	}
	require.Equal(t, []int{maxItems, 10_000 - maxItems}, []int{len(v.Summary.Warnings), v.MoreWarnings})
	require.Len(t, p.Summary.Warnings, 10_000, "the snapshot is as it was")
	require.Len(t, p.Servers[0].Sessions[0].Streams, 2001)
	text, err := json.Marshal(v)
	require.NoError(t, err)
	require.Less(t, len(text), 8<<20, fmt.Sprint(len(text)))
}
