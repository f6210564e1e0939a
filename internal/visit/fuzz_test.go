package visit

import (
	"bytes"
	"testing"

	identifypb "github.com/libp2p/go-libp2p/p2p/protocol/identify/pb"
	"github.com/libp2p/go-msgio/pbio"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// Whatever a peer answers, an identity has valid addresses, few of them, and no more than was sent.
func FuzzReadIdentity(f *testing.F) {
	var seed bytes.Buffer
	w := pbio.NewDelimitedWriter(&seed)
	a := ma.StringCast("/ip4/11.0.0.9/udp/4001/quic-v1")
	require.NoError(f, w.WriteMsg(&identifypb.Identify{ObservedAddr: a.Bytes(), ListenAddrs: [][]byte{a.Bytes()}, Protocols: []string{"/a"}}))
	f.Add(seed.Bytes())
	require.NoError(f, w.WriteMsg(&identifypb.Identify{ListenAddrs: [][]byte{{4, 1}, nil, a.Bytes()}}))
	f.Add(seed.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := readIdentity(bytes.NewReader(b))
		if err != nil {
			require.Equal(t, Identity{}, id)
			return
		}
		size := 0
		require.LessOrEqual(t, len(id.Addrs), maxAddrs)
		for _, a := range id.Addrs {
			require.NotEmpty(t, a)
			size += len(a.Bytes())
			again, err := ma.NewMultiaddrBytes(a.Bytes())
			require.NoError(t, err)
			require.True(t, a.Equal(again))
		}
		for _, p := range id.Protocols {
			size += len(p)
		}
		require.LessOrEqual(t, size, len(b))
	})
}
