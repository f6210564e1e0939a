package diagnostics

import (
	"context"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// HandlerOptions are the options of a Handler.
type HandlerOptions struct {
	// Token is a secret of 16 bytes or more. Requests from any machine are answered if they carry it, as in "Authorization: Bearer TOKEN".
	// If Token is empty, only requests from this machine are answered, of any of its users, and of a proxy on it. Requests over a unix
	// socket need no token: its folder decides who may connect.
	Token string
	// Hosts are the names by which browsers may ask for the page, beside localhost and addresses, as in "metrics.example.org". A request for
	// another name is refused, because a page of anyone's may have made the name point here (DNS rebinding).
	Hosts []string
	// Metrics, if not nil, answers /metrics.
	Metrics http.Handler
	// Profiles serves the profiles of the process at /debug/pprof.
	Profiles bool
	// Interval is the time between two snapshots of a page that is open. If zero, 1 s. At least 100 ms.
	Interval time.Duration
}

// A Handler serves a page that shows a process live, and the same figures as JSON. Its paths are
//
//	/               the page
//	/snapshot.json  a ProcessSnapshot
//	/events         the contents of the page, once per interval, as server-sent events; for the page alone
//	/explain        POST: why a peer can or cannot be reached; for the page alone
//	/metrics        with HandlerOptions.Metrics
//	/debug/pprof/   with HandlerOptions.Profiles
//
// and it may be mounted below a prefix with http.StripPrefix. The page asks for nothing from elsewhere. No request changes anything but
// /explain, which may connect to a peer.
//
// A page that is open costs a snapshot for each interval, which all of them share. It is sent 100 sessions at most, those that its user
// searches for, with the newest 50 lanes of a kind; one that does not read is dropped, and at most 16 are open at once. So are snapshots and
// explanations: 4 of each. An answer that is not read is dropped too.
type Handler struct {
	opts  HandlerOptions
	hosts map[string]bool
	mux   *http.ServeMux
	take  func() ProcessSnapshot
	// explain returns a text that says why a peer can or cannot be reached, or errNoClient.
	explain func(ctx context.Context, peer, tag string) (string, error)

	views  chan struct{}   // a place for each page that is open
	texts  chan struct{}   // one for each answer of /snapshot.json in progress
	asking chan struct{}   // one for each answer of /explain in progress
	ctx    context.Context // ends with Close
	end    context.CancelFunc

	mu   sync.Mutex
	last *ProcessSnapshot // no older than half an interval; nil: there is none
}

// The bounds of a Handler.
const (
	minToken    = 16
	maxViews    = 16               // pages that are open at once
	maxTexts    = 4                // answers of /snapshot.json at once: each can have many megabytes
	minInterval = time.Second / 10 // between two snapshots
	writeTime   = 10 * time.Second // within which a client must read a view or a snapshot
	answerTime  = time.Minute      // within which a client must read any other answer
)

//go:embed page
var page embed.FS

// NewHandler returns a Handler for what sources returns at the time of each snapshot. Nil options are the defaults. It returns an error that
// names the option that is out of range.
func NewHandler(sources func() Sources, options *HandlerOptions) (*Handler, error) {
	var opts HandlerOptions
	if options != nil {
		opts = *options
	}
	switch {
	case opts.Token != "" && len(opts.Token) < minToken:
		return nil, fmt.Errorf("diagnostics: handler: Token has %d bytes, want %d or more", len(opts.Token), minToken)
	case opts.Interval < 0 || opts.Interval > 0 && opts.Interval < minInterval:
		return nil, fmt.Errorf("diagnostics: handler: Interval is %v, want %v or more", opts.Interval, minInterval)
	case opts.Interval == 0:
		opts.Interval = time.Second
	}
	h := &Handler{opts: opts, hosts: make(map[string]bool), mux: http.NewServeMux(), views: make(chan struct{}, maxViews),
		texts: make(chan struct{}, maxTexts), asking: make(chan struct{}, maxExplains),
		take: func() ProcessSnapshot { return OfProcess(sources()) }, explain: explainer(sources)}
	h.ctx, h.end = context.WithCancel(context.Background())
	for i, name := range opts.Hosts {
		if name == "" || strings.ContainsAny(name, ":/ ") {
			return nil, fmt.Errorf("diagnostics: handler: Hosts[%d] is %q, want a name", i, name)
		}
		h.hosts[strings.ToLower(name)] = true
	}
	files, err := fs.Sub(page, "page")
	if err != nil {
		return nil, err
	}
	static := http.FileServerFS(files)
	for _, name := range pageFiles(files) {
		h.mux.Handle("GET /"+name, static)
	}
	h.mux.Handle("GET /{$}", static)
	h.mux.HandleFunc("GET /snapshot.json", h.private(h.serveSnapshot))
	h.mux.HandleFunc("GET /events", h.private(h.serveEvents))
	h.mux.HandleFunc("POST /explain", h.private(h.serveExplain))
	if opts.Metrics != nil {
		h.mux.HandleFunc("GET /metrics", h.private(opts.Metrics.ServeHTTP))
	}
	if opts.Profiles {
		h.mux.HandleFunc("GET /debug/pprof/{$}", h.private(listProfiles))
		h.mux.HandleFunc("GET /debug/pprof/{name}", h.private(h.serveProfile))
	}
	return h, nil
}

// pageFiles returns the names of the files of the page.
func pageFiles(files fs.FS) []string {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "index.html" })
}

// Close ends the pages that are open, so that http.Server.Shutdown need not wait for them: see http.Server.RegisterOnShutdown. Later ones
// are refused. It returns nil.
func (h *Handler) Close() error {
	h.end()
	return nil
}

// ServeHTTP answers a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("Cross-Origin-Resource-Policy", "same-origin")
	head.Set("Cross-Origin-Opener-Policy", "same-origin")
	head.Set("Cache-Control", "no-store")
	if why, code := h.refuse(r); why != "" {
		http.Error(w, why, code)
		return
	}
	_ = deadline(w, answerTime) // the program's http.Server may have no WriteTimeout
	h.mux.ServeHTTP(w, r)
}

// private returns a handler that asks for the token, if there is one.
func (h *Handler) private(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		shown, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		isKnown := isBearer && subtle.ConstantTimeCompare([]byte(shown), []byte(h.opts.Token)) == 1
		if h.opts.Token != "" && !isKnown && !isUnix(r) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			why := "a token is needed: Authorization: Bearer TOKEN"
			if isBearer {
				why = "the token is wrong"
			}
			http.Error(w, why, http.StatusUnauthorized)
			return
		}
		serve(w, r)
	}
}

// current returns a snapshot that is no older than half an interval. All requests share it.
func (h *Handler) current() *ProcessSnapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last == nil {
		v := h.take()
		h.last = &v
		time.AfterFunc(h.opts.Interval/2, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.last = nil
		})
	}
	return h.last
}

// serveSnapshot answers /snapshot.json, once there is a place.
func (h *Handler) serveSnapshot(w http.ResponseWriter, r *http.Request) {
	select {
	case h.texts <- struct{}{}:
		defer func() { <-h.texts }()
	case <-r.Context().Done():
		return
	}
	text, err := json.Marshal(h.current())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = send(w, text) // the client is gone or does not read
}

// send writes text to a client that must take it within writeTime.
func send(w http.ResponseWriter, text []byte) error {
	if err := deadline(w, writeTime); err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	return supported(http.NewResponseController(w).Flush())
}

// deadline sets the time from now within which a client must read. If d is 0, there is no such time.
func deadline(w http.ResponseWriter, d time.Duration) error {
	var at time.Time
	if d > 0 {
		at = time.Now().Add(d)
	}
	return supported(http.NewResponseController(w).SetWriteDeadline(at))
}

// supported returns err, unless it says that a ResponseWriter lacks a method.
func supported(err error) error {
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}
