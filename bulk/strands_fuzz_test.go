package bulk

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// A laid is a block of a hostile peer: which strand it is on, and its content.
type laid struct {
	strand int
	end    bool
	number uint64
	body   []byte
	wire   []byte
}

// lay returns the blocks that a fuzzer's bytes are, and on which strands they are. Three bytes are one: the strand and the kind; the
// number, as how far it is from the next one that is missing; and the size.
func lay(script []byte) (all []laid) {
	next := uint64(0)
	for ; len(script) >= 3 && len(all) < 200; script = script[3:] {
		b := laid{strand: int(script[0] % 3), end: script[0]&0x40 != 0, number: next + uint64(int64(int8(script[1])))}
		if script[1] == 0 && !b.end {
			next++
		}
		switch n := 1 + int(script[2]); {
		case b.end:
			b.wire = rawEnd(b.number)
		case script[0]&0x20 != 0:
			b.body = bytes.Repeat([]byte{byte(len(all))}, 64*n)
			b.wire = rawZstd(b.number, pack(b.body), len(b.body))
		default:
			b.body = bytes.Repeat([]byte{byte(len(all))}, n)
			b.wire = rawBlock(b.number, string(b.body))
		}
		all = append(all, b)
	}
	return all
}

// valid returns the bytes of a lane, and whether its blocks break no rule (spec 4.2, 4.3): each number once, those of a strand rising,
// and one END, on the number that comes then, behind which its strand has nothing.
func valid(all []laid) (want []byte, ok bool) {
	body := map[uint64][]byte{}
	var rising [3]uint64 // the least number that may come on a strand
	ends, end := 0, uint64(0)
	for _, b := range all {
		if b.number < rising[b.strand] {
			return nil, false
		}
		rising[b.strand] = b.number + 1
		if b.end {
			ends, end = ends+1, b.number
			rising[b.strand] = 1<<64 - 1
			continue
		}
		if _, twice := body[b.number]; twice {
			return nil, false
		}
		body[b.number] = b.body
	}
	for i := range uint64(len(body)) {
		b, there := body[i]
		if !there {
			return nil, false
		}
		want = append(want, b...)
	}
	return want, ends == 1 && end == uint64(len(body))
}

// FuzzStrandOrder: in whatever order, and on whatever strands, a peer sends blocks: if they break no rule all of them are read, in
// order; else what is read is made of blocks in the order of their numbers, and the lane ends with an error, or before the breach was seen.
func FuzzStrandOrder(f *testing.F) {
	f.Add([]byte{0, 0, 9, 1, 0, 99, 2, 0, 200, 0x40, 0, 0}, uint8(0))
	f.Add([]byte{1, 1, 9, 0, 0, 99, 0, 1, 200, 0x22, 2, 3, 0x41, 4, 0}, uint8(1))
	f.Add([]byte{0, 0, 9, 1, 0xff, 99, 0x40, 0, 0}, uint8(0))
	f.Add([]byte{0x20, 0, 255, 0x21, 0, 255, 0x22, 0, 255, 0x42, 0, 0}, uint8(2))
	f.Fuzz(func(t *testing.T, script []byte, slow uint8) {
		synctest.Test(t, func(t *testing.T) { strandOrder(t, lay(script), slow) })
	})
}

// strandOrder has blocks read that come on three strands, which take few bytes at a time if slow is odd.
func strandOrder(t *testing.T, all []laid, slow uint8) {
	want, ok := valid(all)
	opts := faultnet.LinkOptions{Delay: time.Duration(slow/2) * time.Millisecond}
	if slow%2 != 0 {
		opts.Buffer = 100
	}
	lane, far := rawLane(true, 3, opts)
	var wires [3][]byte
	bodies := map[byte]uint64{} // by their first byte
	for i, b := range all {
		wires[b.strand] = append(wires[b.strand], b.wire...)
		bodies[byte(i)] = b.number
	}
	for i, wire := range wires {
		go func() {
			_, _ = far[i].Write(wire)
			_ = far[i].CloseWrite()
		}()
	}
	require.NoError(t, lane.SetReadDeadline(time.Now().Add(time.Minute)))
	var got bytes.Buffer
	_, err := io.Copy(&got, lane)
	lane.mu.Lock()
	require.LessOrEqual(t, len(lane.held), 3)
	lane.mu.Unlock()
	switch {
	case ok:
		require.NoError(t, err)
		require.Equal(t, string(want), got.String())
	case err != nil:
		require.True(t, errors.Is(err, errProtocol) || errors.Is(err, io.ErrUnexpectedEOF), "%v", err)
	}
	next := uint64(0)
	for rest := got.Bytes(); len(rest) > 0; next++ {
		i := rest[0]
		require.Equal(t, next, bodies[i])
		n := min(len(all[i].body), len(rest))
		require.Equal(t, all[i].body[:n], rest[:n])
		rest = rest[n:]
	}
	require.NoError(t, lane.Close())
	for i := range far {
		_ = far[i].Close()
	}
	<-lane.done
	require.Empty(t, lane.held)
	require.Zero(t, lane.running)
}
