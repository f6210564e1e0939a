package unixsock

import (
	"testing"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// A path is that of an address which has nothing beside it; and no address that a peer makes up is dialed, only those that were given.
func FuzzPath(f *testing.F) {
	for _, s := range []string{
		"/unix/run/app.sock", "/unix/run/other.sock", "/ip4/127.0.0.1/tcp/1", "/unix/a/p2p/12D3KooWQsGKhGnupxv3ztipo3H9kidR8DBkUHqLp5x7gKWANC4n",
	} {
		if a, err := ma.NewMultiaddr(s); err == nil {
			f.Add(a.Bytes())
		}
	}
	f.Add(append([]byte{0x90, 3, 3}, "/\x00a"...))
	given := ma.StringCast("/unix/run/app.sock")
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ma.NewMultiaddrBytes(b)
		if err != nil {
			return
		}
		path, ok := Path(a)
		var all Paths
		all.Allow(given)
		require.Equal(t, ok && path == "/run/app.sock", all.allows(path))
		if !ok {
			require.Empty(t, path)
			return
		}
		require.NotEmpty(t, path)
		require.LessOrEqual(t, len(path), len(b))
		all.Allow(a)
		require.True(t, all.allows(path))
	})
}
