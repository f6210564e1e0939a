//go:build browser

package diagnostics

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The page in a real browser: `make page` installs what it needs. internal/test/page/check.mjs says what is checked; it is given three
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
	cmd.Env = append(os.Environ(), "PAGE="+large, "GUARDED="+guarded, "TOKEN="+token, "REPLAY="+replay, "SHOTS="+shots)
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
