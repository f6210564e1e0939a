package record_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/resume"
	"github.com/peerlane/peerlane/session"
)

// highway is a pair of sessions, whose carriers are links that break on command.
type highway struct{ *peerlanetest.Sessions }

// newHighway opens a session. Both sides are closed when the test ends.
func newHighway(t *testing.T, o peerlanetest.SessionsOptions, cfg session.Config) *highway {
	t.Helper()
	accept := session.AcceptorConfig{Config: cfg}
	o.Config, o.Accept = cfg, &accept
	o.Config.Backoff = resume.Backoff{Min: time.Millisecond, Max: 20 * time.Millisecond}
	return &highway{peerlanetest.NewSessions(t, &o)}
}

// newest returns the newest link.
func (h *highway) newest() *peerlanetest.Link {
	links := h.Links()
	return links[len(links)-1]
}

// lose cuts the newest link, and none can be opened until find.
func (h *highway) lose() {
	h.Refuse(true)
	h.newest().Cut()
}

func (h *highway) find() { h.Refuse(false) }

// cutEach has the newest link, and each of the next n-1, cut after some bytes.
func (h *highway) cutEach(rng *rand.Rand, n int) {
	made := 0
	cut := func(l *peerlanetest.Link) {
		if made++; made <= n {
			bytes := rng.IntN(600)
			if rng.IntN(3) > 0 {
				bytes = rng.IntN(1 << (8 + rng.IntN(10)))
			}
			l.CutAfter(int64(bytes))
		}
	}
	cut(h.newest())
	h.OnLink(cut)
}

// carriers returns how many links there have been.
func (h *highway) carriers() int { return len(h.Links()) }

// connect opens a record stream from alice, or from bob, and returns both ends. It is served until the stream is closed.
func (h *highway) connect(t *testing.T, fromBob bool, open, accept *record.Options) (from, to *record.Stream) {
	t.Helper()
	opener, mux := h.Alice, h.ToBob
	if fromBob {
		opener, mux = h.Bob, h.ToAlice
	}
	served := make(chan *record.Stream, 1)
	record.Handle(mux, "log", func(record.AcceptInfo) (*record.Options, error) { return accept, nil }, func(s *record.Stream) {
		served <- s
		<-s.Done()
	})
	from, err := record.Open(t.Context(), opener, "log", open)
	require.NoError(t, err)
	to = <-served
	t.Cleanup(func() { _, _ = from.Close(), to.Close() })
	return from, to
}
