//go:build !race

package node_test

const inAll = 10_000 // conns of a crowd, which are libp2p streams, and calls beside them
