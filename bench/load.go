package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// A load is what is asked of a contender: payload size and concurrency.
type load struct {
	Size    int `json:"size"`    // bytes of request, and of reply
	Callers int `json:"callers"` // goroutines, each with one call in flight
}

// The loads, in the order of the table. The floors name them.
var (
	smallAlone = load{Size: 128, Callers: 1}
	smallMany  = load{Size: 128, Callers: 64}
	largeMany  = load{Size: 64 << 10, Callers: 16}

	loads = []load{smallAlone, smallMany, largeMany}
)

// String returns the load as in "128 B x 64".
func (l load) String() string {
	if l.Size >= 1<<10 {
		return fmt.Sprintf("%d KiB x %d", l.Size>>10, l.Callers)
	}
	return fmt.Sprintf("%d B x %d", l.Size, l.Callers)
}

// stampSize is the part of each request that names its caller and its number.
const stampSize = 8

// stamp writes the name of request seq of caller id into the start of payload.
func stamp(payload []byte, id int, seq uint64) {
	binary.BigEndian.PutUint64(payload, uint64(id)<<48|seq&(1<<48-1))
}

const sampleText = "A peer is addressed by its libp2p Peer ID, never by host:port. " +
	"Between two peers there is one session, and on it run lanes. "

// newPayload returns size bytes of the given kind: "random" does not compress,
// "text" does, "zero" is the extreme. It fails on any other kind.
func newPayload(kind string, size int) ([]byte, error) {
	p := make([]byte, size)
	switch kind {
	case "random":
		var seed [32]byte
		seed[0] = 1
		_, _ = rand.NewChaCha8(seed).Read(p) // is documented to return no error
	case "text":
		for n := 0; n < size; {
			n += copy(p[n:], sampleText)
		}
	case "zero":
	default:
		return nil, fmt.Errorf("payload %q: want random, text or zero", kind)
	}
	return p, nil
}
