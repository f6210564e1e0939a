//go:build linux

package reach

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/nat"
	"github.com/peerlane/peerlane/internal/test/natlab"
)

// Two hard NATs let no direct path through. A command goes over the relay if it has --allow-relay, and else ends with exit code 3 and a hint that
// names the flag. The tests of the pairs of NATs have the same for get.
func TestARelayIsUsedWithAllowRelayAlone(t *testing.T) {
	inFull(t)
	t.Parallel()
	link := natlab.Conditions{Delay: oneWay}
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, make([]byte, 10_000), 0o600))
	for _, tt := range []struct {
		waits   []string // the command of the called side
		comes   []string // that of the caller: its name, and what follows the address
		answers string   // the last line of a caller that has got through
		path    string   // a line about its path, before the relay's Peer ID, if it prints one
	}{
		{[]string{"serve"}, []string{"call", "--data", "hello\n"}, `^hello$`, ""},
		{[]string{"serve"}, []string{"ping", "-c", "2", "-i", "100ms"}, `^2 pings: `, `^12D3KooW\S+: relayed by `},
		{[]string{"receive", "inbox"}, []string{"push", file}, `^sent     "file": 1 file, 10.0 kB`, `^path     relayed by `},
	} {
		t.Run(tt.comes[0], func(t *testing.T) {
			t.Parallel()
			lab := natlab.New(t)
			r := newRelay(t, lab)
			waits, comes := home(lab, &nat.Hard, link), home(lab, &nat.Hard, link)
			key, id := newKey(t, comes)
			waiting := start(t, waits, append(tt.waits, "--allow", id, "--relay", r.at(transports[0]))...)
			circuit, _ := waiting.await(`^address  (/ip4/11\.0\.\S+/p2p-circuit/p2p/12D3KooW\S+)$`)
			waiting.await(`^ready$`)
			args := append([]string{tt.comes[0], "--key", key, circuit[1]}, tt.comes[1:]...)
			without := start(t, comes, args...)
			require.Equal(t, 3, without.wait(patience), without.text())
			without.await(`^hint: the NATs let no direct path through: --allow-relay goes through the relay`)
			with := start(t, comes, append(args, "--allow-relay")...)
			require.Zero(t, with.wait(patience), with.text())
			with.await(tt.answers)
			if tt.path != "" {
				with.await(tt.path + r.id)
			}
			t.Logf("without the flag: ends after %v; with it: after %v", without.took().Round(time.Millisecond), with.took().Round(time.Millisecond))
		})
	}
}
