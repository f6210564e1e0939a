package diagnostics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// The bounds of /explain.
const (
	maxAsked    = 4 << 10 // bytes of a request
	maxExplains = 4       // at once: each may connect to a peer
	explainTime = 30 * time.Second
)

// errNoClient: a process that only serves has nothing to dial with.
var errNoClient = errors.New("this process has no client, and connects to nobody: ask the peer's side, or use peerlane explain")

// explainer returns a function that explains with the first of the clients.
func explainer(sources func() Sources) func(ctx context.Context, peer, tag string) (string, error) {
	return func(ctx context.Context, peer, tag string) (string, error) {
		for _, c := range sources().Clients {
			if c != nil {
				return Explain(ctx, c, peer, tag).String(), nil
			}
		}
		return "", errNoClient
	}
}

// serveExplain answers /explain. It may connect to a peer, so it is no GET, and pages of other sites cannot ask for it.
func (h *Handler) serveExplain(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Peer, Tag string }
	if r.Header.Get("Content-Type") != "application/json" {
		http.Error(w, "want Content-Type: application/json", http.StatusUnsupportedMediaType)
		return
	}
	in := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAsked))
	in.DisallowUnknownFields()
	if err := in.Decode(&asked); err != nil || asked.Peer == "" || asked.Tag == "" {
		http.Error(w, `want {"peer": PEER, "tag": TAG}`, http.StatusBadRequest)
		return
	}
	select {
	case h.asking <- struct{}{}:
		defer func() { <-h.asking }()
	default:
		w.Header().Set("Retry-After", "5")
		http.Error(w, fmt.Sprintf("%d explanations are in progress, which is the most", maxExplains), http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), explainTime)
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	text, err := h.explain(ctx, asked.Peer, asked.Tag)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_ = send(w, []byte(text)) // the client is gone or does not read
}
