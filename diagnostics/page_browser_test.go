//go:build browser

package diagnostics

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The page in a real browser: `make page` installs what it needs. With DRAW=1 the pictures of docs/DIAGNOSTICS.md are made as well. internal/test/page/check.mjs says what is checked; it is given three
// pages: one with 10,000 sessions, one with a token, and one to which an hour of snapshots is replayed.
func TestThePageInABrowser(t *testing.T) {
	from, err := filepath.Abs(filepath.Join("..", "internal", "test", "page"))
	require.NoError(t, err)
	shots := filepath.Join(from, "shots")
	require.NoError(t, os.MkdirAll(shots, 0o755))
	dir := t.TempDir() // what npm installs is not for the repository's folder
	for _, name := range []string{"check.mjs", "package.json", "package-lock.json"} {
		text, err := os.ReadFile(filepath.Join(from, name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	install := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund")
	install.Dir = dir
	out, err := install.CombinedOutput()
	require.NoError(t, err, "%s", out)
	cmd := exec.CommandContext(ctx, "node", "check.mjs")
	cmd.Dir = dir
	const token = "0123456789abcdef-page"
	var ticks atomic.Int64
	large := serveFake(t, nil, time.Second, func() ProcessSnapshot { return fakeProcess(10_000, int(ticks.Add(1))) })
	guarded := serveFake(t, &HandlerOptions{Token: token}, time.Second, func() ProcessSnapshot { return fakeProcess(40, 1) })
	replay := serveFake(t, nil, 12*time.Millisecond, hour())
	picture := serveFake(t, nil, 400*time.Millisecond, evening())
	cmd.Env = append(os.Environ(), "PAGE="+large, "GUARDED="+guarded, "TOKEN="+token, "REPLAY="+replay, "PICTURE="+picture, "SHOTS="+shots)
	out, err = cmd.CombinedOutput()
	t.Logf("%s", out)
	require.NoError(t, err)
}

// hour returns the snapshots of an hour, one after the other.
func hour() func() ProcessSnapshot {
	tick := 0
	return func() ProcessSnapshot {
		tick++
		return fakeProcess(60, min(tick, 3600))
	}
}

// evening returns snapshots of a process with a dozen sessions, for a picture.
func evening() func() ProcessSnapshot {
	began, n := time.Now(), 0
	peers := make([]string, 10)
	for i := range peers {
		sum := sha256.Sum256([]byte{byte(i)})
		peers[i] = "12D3KooW" + base64.RawStdEncoding.EncodeToString(sum[:])[:40] + "Qx"
		peers[i] = strings.NewReplacer("+", "z", "/", "y", "0", "x", "O", "w", "I", "v", "l", "u").Replace(peers[i])
	}
	return func() ProcessSnapshot {
		n++
		at := time.Now()
		v := ServerSnapshot{Version: Version, Taken: at, Host: peers[9], Tags: []string{"/chat/1.0.0", "/files/1.0.0"}}
		for i := range 12 {
			s := SessionSnapshot{ID: fmt.Sprint(i), Peer: peers[i%9], Tag: v.Tags[i%2], State: "connected", Started: began.Add(-time.Duration(i*i+3) * time.Minute),
				StateSince: at.Add(-9 * time.Second), RTT: Duration(time.Duration(8+i*i*3) * time.Millisecond / 2), RequestsIn: uint64(n * (i + 1)), InFlightIn: i % 2,
				BytesIn: uint64(n * n * (13 - i) * (2000 + 900*((n+i)%5))), BytesOut: uint64(n * (i + 1) * 9000), Path: &PathSnapshot{Text: "direct, quic-v1", Transport: "quic-v1"}}
			switch i {
			case 2, 6:
				s.Path = &PathSnapshot{Text: "relayed by " + peers[8][:20] + "..., tcp", Relayed: true, Relay: "12D3KooWBRelayAtTheOffice7fq"}
			case 5:
				s.State, s.Path = "detached", nil
			case 8:
				s.Path = &PathSnapshot{Text: "direct, tcp", Transport: "tcp"}
			}
			v.Sessions = append(v.Sessions, s)
		}
		slices.SortFunc(v.Sessions, func(a, b SessionSnapshot) int { return strings.Compare(a.Peer, b.Peer) })
		p := ProcessSnapshot{Version: Version, Taken: at, Servers: []ServerSnapshot{v}}
		p.Summary = Summary(v)
		p.Summary.Uptime, p.Summary.Module = Duration(7*time.Hour+time.Since(began)), "v1.0.0"
		return p
	}
}

// serveFake serves a page of what take returns, and returns its address.
func serveFake(t *testing.T, options *HandlerOptions, interval time.Duration, take func() ProcessSnapshot) string {
	h, err := NewHandler(nothing, options)
	require.NoError(t, err)
	h.take, h.opts.Interval = take, interval
	h.explain = func(_ context.Context, peer, tag string) (string, error) {
		return fmt.Sprintf("%s on %s: <b>connected</b>", peer, tag), nil
	}
	s := httptest.NewServer(http.StripPrefix("/debug", h))
	t.Cleanup(s.Close)
	t.Cleanup(func() { _ = h.Close() })
	return s.URL + "/debug/"
}
