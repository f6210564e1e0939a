package diagnostics

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// serveEvents answers /events: a view now, and another each interval, until the client goes, does not read, or the Handler is closed.
func (h *Handler) serveEvents(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case h.views <- struct{}{}:
		defer func() { <-h.views }()
	default:
		w.Header().Set("Retry-After", "5")
		http.Error(w, fmt.Sprintf("%d pages are open, which is the most", maxViews), http.StatusServiceUnavailable)
		return
	}
	if h.ctx.Err() != nil {
		http.Error(w, "closed", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(h.opts.Interval)
	defer tick.Stop()
	for {
		err := send(w, event(viewOf(h.current(), q)))
		if err == nil {
			err = deadline(w, 0) // over HTTP/2 one that passes ends the page, though nothing is left to read
		}
		if err != nil {
			return // the client is gone or does not read
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-h.ctx.Done():
			return
		}
	}
}

// event returns v as a server-sent event: its JSON has no line breaks.
func event(v *view) []byte {
	var b bytes.Buffer
	b.WriteString("data: ")
	_ = json.NewEncoder(&b).Encode(v) // ends with a line break, and does not fail for a view
	b.WriteByte('\n')
	return b.Bytes()
}

// parseQuery reads a query.
func parseQuery(values url.Values) (query, error) {
	if n := len(values.Get("q")); n > maxSearch {
		return query{}, fmt.Errorf("q has %d bytes, want %d or fewer", n, maxSearch)
	}
	q := query{words: strings.Fields(strings.ToLower(values.Get("q"))), order: "peer", count: 25}
	if order := values.Get("order"); order != "" {
		q.order = order
	}
	if orders[q.order] == nil {
		return query{}, fmt.Errorf("order is %q, which is none", q.order)
	}
	for name, to := range map[string]*int{"first": &q.first, "count": &q.count} {
		text := values.Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return query{}, fmt.Errorf("%s is %q, want a number", name, text)
		}
		*to = n
	}
	if q.count < 1 || q.count > maxRows {
		return query{}, fmt.Errorf("count is %d, want 1 to %d", q.count, maxRows)
	}
	return q, nil
}
