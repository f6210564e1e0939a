package peerlane

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/resume"
	"github.com/peerlane/peerlane/session"
)

// refuser refuses the sessions of callTag on a host, with a hint, and remembers when it was asked.
type refuser struct {
	mu    sync.Mutex
	began time.Time
	asked []time.Duration // since began
}

func refuseWith(h host.Host, hint time.Duration) *refuser {
	r := &refuser{began: time.Now()}
	h.SetStreamHandler(sessionTag(callTag), func(s network.Stream) {
		defer func() { _ = s.Close() }()
		r.mu.Lock()
		r.asked = append(r.asked, time.Since(r.began))
		r.mu.Unlock()
		if _, err := frame.ReadHello(s); err == nil {
			_ = frame.WriteHello(s, frame.AppendHello(nil, &frame.Hello{Kind: frame.KindRefuse, Version: frame.Version,
				Failure: &frame.Failure{Code: codes.Unavailable, RetryAfter: hint, Text: "full"}}))
		}
	})
	return r
}

// times returns when the peer was asked.
func (r *refuser) times() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// requireApart fails unless the peer was asked n times, and at least d passed between any two.
func (r *refuser) requireApart(t *testing.T, n int, d time.Duration) {
	t.Helper()
	asked := r.times()
	require.Len(t, asked, n, "%v", asked)
	for i := range asked[1:] {
		require.GreaterOrEqual(t, asked[i+1]-asked[i], d, "%v", asked)
	}
}

// requireFull fails unless err is the refusal, and says how long to wait, at most most.
func requireFull(t *testing.T, err error, most time.Duration) *Error {
	t.Helper()
	require.ErrorIs(t, err, ErrUnavailable)
	e := requireTyped(t, err, session.NotSent)
	require.True(t, e.Remote)
	require.Contains(t, e.Error(), "retry after")
	require.Positive(t, e.RetryAfter)
	require.LessOrEqual(t, e.RetryAfter, most)
	return e
}

// hintlessWaits is a configuration whose own waits are far shorter than the hints of these tests.
func hintlessWaits() *ClientConfig {
	return &ClientConfig{AdmitAll: true, MaxRetries: 3, RetryInterval: time.Millisecond, ConnectTimeout: 4 * time.Second}
}

// A Send comes again when the peer has said, and no more often, whoever else asks meanwhile.
func TestASendDoesNotAskAgainBeforeThePeerHasSaid(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b host.Host) {
		const hint = 3 * time.Second
		r := refuseWith(b, hint)
		c := newClient(t, a, hintlessWaits())
		sent := sendAsync(t.Context(), c, b, nil)
		time.Sleep(time.Second)
		for range 100 {
			_, err := c.Connect(t.Context(), b.ID(), callTag)
			e := requireFull(t, err, hint-500*time.Millisecond)
			require.Greater(t, e.RetryAfter, hint-2*time.Second, "the time that is left")
		}
		require.Len(t, r.times(), 1, "a Connect has dialed")
		requireFull(t, <-sent, hint)
		r.requireApart(t, 4, hint)
		require.Less(t, time.Since(r.began), 3*hint+time.Second)
	})
}

// A hint of an hour holds a client up for ConnectTimeout, and one that ReadTimeout does not cover for no time at all.
func TestTheHintOfARefusalIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b host.Host) {
		r := refuseWith(b, time.Hour)
		c := newClient(t, a, hintlessWaits())
		requireFull(t, <-sendAsync(t.Context(), c, b, nil), time.Hour)
		r.requireApart(t, 4, 4*time.Second)
		require.Less(t, time.Since(r.began), 14*time.Second)
		time.Sleep(5 * time.Second)

		r = refuseWith(b, time.Hour)
		cfg := hintlessWaits()
		cfg.ReadTimeout = 3 * time.Second
		requireFull(t, <-sendAsync(t.Context(), newClient(t, a, cfg), b, nil), time.Hour)
		require.Len(t, r.times(), 1)
		require.Less(t, time.Since(r.began), time.Second, "waits for what ReadTimeout would cut off")
	})
}

// The hint is that of one peer and tag, ends by itself, and leaves nothing behind.
func TestTheHintOfARefusalEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b host.Host) {
		s := newServer(t, b, &ServerConfig{MaxConcurrentConns: 1, AdmitAll: true})
		require.NoError(t, s.Listen(callTag))
		require.NoError(t, newServer(t, b, &ServerConfig{AdmitAll: true}).Listen("/other"))
		c := newClient(t, a, hintlessWaits())
		first, err := c.Connect(t.Context(), b.ID(), callTag)
		require.NoError(t, err)
		_, err = c.Connect(t.Context(), b.ID(), callTag)
		hint := requireFull(t, err, time.Second).RetryAfter
		require.NoError(t, first.Close())
		_, err = c.Connect(t.Context(), b.ID(), "/other")
		require.NoError(t, err)
		_, err = c.Connect(t.Context(), b.ID(), callTag)
		requireFull(t, err, hint)
		time.Sleep(hint)
		_, err = c.Connect(t.Context(), b.ID(), callTag)
		require.NoError(t, err)
		c.pool.refused.note(poolKey{b.ID(), "/third"}, &Error{Remote: true, RetryAfter: time.Second})
		require.Len(t, c.pool.refused.all, 1, "what is over is forgotten")
		c.pool.refused.note(poolKey{b.ID(), "/fourth"}, &Error{RetryAfter: time.Second})
		c.pool.refused.note(poolKey{b.ID(), "/fifth"}, &Error{Remote: true})
		require.Len(t, c.pool.refused.all, 1, "no hint of the peer's")
	})
}

// A keeper waits as the peer has said, up to Backoff.Max, and connections of the peer do not end that.
func TestAKeeperDoesNotAskAgainBeforeThePeerHasSaid(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b host.Host) {
		r := refuseWith(b, 3*time.Second)
		c := newClient(t, a, hintlessWaits())
		k, err := c.Keep(b.ID(), callTag, &KeeperConfig{MaxAttempts: 3,
			Backoff: resume.Backoff{Min: time.Millisecond, Max: 3500 * time.Millisecond}})
		require.NoError(t, err)
		for range 8 {
			time.Sleep(1100 * time.Millisecond)
			k.onConnected(a.Network().ConnsToPeer(b.ID())[0])
			synctest.Wait()
		}
		<-k.Done()
		require.ErrorIs(t, k.Err(), ErrUnavailable)
		r.requireApart(t, 3, 3*time.Second)
		require.NoError(t, k.Close())
	})
}

// A hint of the peer's OnOpen is kept to as that of a refused hello.
func TestAHintOfOnOpenIsKeptTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, nil)
		var asked []time.Time
		cfg := DefaultServerConfig()
		cfg.Hooks = &Hooks{OnOpen: func(*session.Session) error {
			if asked = append(asked, time.Now()); len(asked) == 1 {
				time.Sleep(time.Second) // the call is under way
				return &Error{Code: codes.Unavailable, RetryAfter: 2 * time.Second, Text: "full"}
			}
			return nil
		}}
		server, err := NewServer(h.Bob, cfg)
		require.NoError(t, err)
		defer func() { require.NoError(t, server.Stop()) }()
		require.NoError(t, server.Start(callTag, func(b []byte) ([]byte, error) { return b, nil }))
		client, err := NewClient(h.Alice, nil)
		require.NoError(t, err)
		defer func() { require.NoError(t, client.Close()) }()
		_, err = client.Send(t.Context(), h.Bob.ID(), callTag, nil)
		require.ErrorIs(t, err, ErrUnavailable)
		synctest.Wait()
		_, err = client.Send(t.Context(), h.Bob.ID(), callTag, nil)
		require.NoError(t, err)
		require.Len(t, asked, 2)
		require.GreaterOrEqual(t, asked[1].Sub(asked[0]), 3*time.Second)
	})
}
