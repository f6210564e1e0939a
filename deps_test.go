package peerlane

import (
	_ "github.com/alecthomas/kong"
	_ "github.com/flynn/noise"
	_ "github.com/klauspost/compress/zstd"
	_ "github.com/libp2p/go-libp2p"
	_ "github.com/libp2p/go-libp2p/p2p/net/gostream"
	_ "github.com/libp2p/go-libp2p/x/simlibp2p"
	_ "github.com/multiformats/go-multiaddr"
	_ "github.com/multiformats/go-multistream"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/stretchr/testify/require"
	_ "go.uber.org/goleak"
	_ "golang.org/x/crypto/argon2"
	_ "golang.org/x/net/nettest"
	_ "golang.org/x/time/rate"
	_ "pgregory.net/rapid"
)
