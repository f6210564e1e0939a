//go:build race

package node_test

const inAll = 1_000 // the race detector allows 8128 goroutines
