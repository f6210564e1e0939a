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

// A transfer that begins over a relay without limits goes over to the direct path that is found meanwhile, with most of its bytes.
// --allow-relay waits a while for that path before it begins.
func TestATransferMovesOffTheRelay(t *testing.T) {
	inFull(t)
	const size, rate = 24 << 20, 4 << 20
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, make([]byte, size), 0o600))
	for name, args := range map[string][]string{"direct alone": nil, "--allow-relay": {"--allow-relay"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := natlab.New(t)
			r := &relay{host: lab.Host(), key: filepath.Join(t.TempDir(), "relay.key"), args: []string{"--data", "none"}}
			r.plug(t, lab)
			routers := make([]*natlab.Router, 2)
			for i := range routers {
				routers[i] = lab.Router(lab.Internet, &natlab.RouterOptions{NAT: &nat.Easy, Version: 4})
				routers[i].Link().Set(natlab.Conditions{Delay: oneWay, Rate: rate})
			}
			routers[0].DropDirect(r.Addrs()[0])
			send := start(t, lab.Host(routers[0].LAN), "send", "--relay", r.at("tcp/4001"), file)
			ticket, _ := send.await(`^ticket   (\S+)`)
			send.await(`^ready$`)
			to := t.TempDir()
			get := start(t, lab.Host(routers[1].LAN), append([]string{"get", ticket[1], to}, args...)...)
			get.await(`^path     relayed by 12D3KooW\S+, tcp`)
			require.Eventually(t, func() bool { return r.Link().Sent() > size/16 }, patience, 10*time.Millisecond, "it has begun")
			routers[0].DropDirect()
			_, moved := get.await(`^path     direct, (tcp|quic-v1)`)
			require.Zero(t, get.wait(2*patience))
			require.Zero(t, send.wait(patience))
			got, err := os.Stat(filepath.Join(to, "file"))
			require.NoError(t, err)
			require.EqualValues(t, size, got.Size())
			relayed := r.Link().Sent()
			t.Logf("direct after %v; %d of %d KB over the relay", moved, relayed/1000, size/1000)
			require.Less(t, relayed, int64(size/2))
		})
	}
}
