package diagnostics

import (
	"cmp"
	"fmt"
	"net/http"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"strconv"
	"time"
)

// maxProfile is how long a profile of the processor, or a trace, may be.
const maxProfile = 5 * time.Minute

// listProfiles answers /debug/pprof/. Package net/http/pprof is not used because it adds its paths to http.DefaultServeMux, which a program
// may serve to anyone.
func listProfiles(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	all := pprof.Profiles()
	slices.SortFunc(all, func(a, b *pprof.Profile) int { return cmp.Compare(a.Name(), b.Name()) })
	for _, p := range all {
		fmt.Fprintf(w, "%s\t%d\n", p.Name(), p.Count())
	}
	fmt.Fprint(w, "profile\t?seconds=10\ntrace\t?seconds=1\n")
}

// serveProfile answers /debug/pprof/NAME, as package net/http/pprof does.
func (h *Handler) serveProfile(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	switch name {
	case "profile":
		h.runProfile(w, r, 10*time.Second, func() error { return pprof.StartCPUProfile(w) }, pprof.StopCPUProfile)
		return
	case "trace":
		h.runProfile(w, r, time.Second, func() error { return trace.Start(w) }, trace.Stop)
		return
	}
	p := pprof.Lookup(name)
	if p == nil {
		http.Error(w, "there is no such profile: /debug/pprof/ lists them", http.StatusNotFound)
		return
	}
	debug, _ := strconv.Atoi(r.URL.Query().Get("debug")) // 0, for go tool pprof, unless it is a number
	w.Header().Set("Content-Type", "application/octet-stream")
	if debug > 0 {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	_ = p.WriteTo(w, debug) // the client is gone
}

// runProfile runs a profile for as long as r says, or until its client is gone or the Handler is closed. A client that does not read cannot
// keep it from ending: only one profile of a kind can run in a process.
func (h *Handler) runProfile(w http.ResponseWriter, r *http.Request, d time.Duration, start func() error, stop func()) {
	if text := r.URL.Query().Get("seconds"); text != "" {
		n, err := strconv.ParseFloat(text, 64)
		if d = time.Duration(n * float64(time.Second)); err != nil || d <= 0 || d > maxProfile {
			http.Error(w, fmt.Sprintf("seconds is %q, want up to %.0f", text, maxProfile.Seconds()), http.StatusBadRequest)
			return
		}
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := start(); err != nil {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		http.Error(w, err.Error(), http.StatusConflict) // another one runs
		return
	}
	_ = deadline(w, d+writeTime) // where it is not supported, the server's own holds
	defer func() {
		_ = deadline(w, writeTime)
		stop()
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	case <-h.ctx.Done():
	}
}
