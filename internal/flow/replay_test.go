package flow

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// sent takes segments apart: what bytes they carry, from which offset on, and how many offsets that is.
func sent(t require.TestingT, segments []byte) (data []byte, offsets uint64) {
	for len(segments) > 0 {
		h := headerOf(segments)
		require.NoError(t, h.check())
		data = append(data, segments[headerSize:headerSize+h.length]...)
		offsets += h.takes()
		segments = segments[headerSize+h.length:]
	}
	return data, offsets
}

func TestReplayKeepsNoMoreThanItsLimit(t *testing.T) {
	r := &replay{limit: 4 << 10}
	require.Equal(t, 4<<10-headerSize, r.write(make([]byte, 8<<10)))
	require.Zero(t, r.write([]byte{1}))
	require.Zero(t, r.room())
	r.next(kindData, 0, maxPiece)
	r.ack(r.sent)
	require.Zero(t, r.held)
	require.Equal(t, 10, r.write(make([]byte, 10)))
	r.drop()
}

func TestReplayKeepsASegmentThatIsAcknowledgedInPart(t *testing.T) {
	r := &replay{limit: 4 << 10}
	r.write([]byte("hello"))
	r.next(kindData, 0, maxPiece)
	r.ack(3)
	require.Equal(t, headerSize+5, r.held, "a segment is forgotten whole")
	r.rewind(3)
	segments, _ := r.next(kindAsk, 9, maxPiece)
	require.Equal(t, append(header{kindAsk, 2, 9}.append(nil), "lo"...), segments)
	r.drop()
}

func TestReplayPutsSmallWritesIntoOneSegment(t *testing.T) {
	r := &replay{limit: 4 << 10}
	r.write([]byte("ab"))
	r.write([]byte("cd"))
	segments, c := r.next(kindData, 1, maxPiece)
	require.Equal(t, append(header{kindData, 4, 1}.append(nil), "abcd"...), segments)
	r.write([]byte("ef")) // not into what a carrier is sending
	require.Equal(t, "abcd", string(segments[headerSize:]))
	require.Equal(t, headerSize+2, r.nextSize(maxPiece))
	r.done(c)
	r.finish()
	segments, _ = r.next(kindAsk, 2, maxPiece)
	require.EqualValues(t, kindFin, headerOf(segments[headerSize+2:]).kind, "a FIN stays one")
	r.drop()
}

func TestReplayFreesAChunkOnlyWhenNoCarrierReadsFromIt(t *testing.T) {
	r := &replay{limit: 1 << 20}
	r.write([]byte("hello"))
	_, c := r.next(kindData, 0, maxPiece)
	r.ack(5)
	require.True(t, c.freed)
	require.Zero(t, r.held)
	r.done(c)
	require.False(t, c.freed)
}

// A replay is the bytes written, of which the carrier gets what it has not got, from wherever the other side says.
//
// Row: S4
func TestReplayIsASliceOfBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &replay{limit: rapid.SampledFrom([]int{MinWindow, 5000, 64 << 10, 1 << 20}).Draw(t, "limit")}
		memory := &bounded{limit: 1 << 30}
		if rapid.Bool().Draw(t, "bounded") {
			memory.limit = rapid.SampledFrom([]int{0, largeChunk, 3 * largeChunk}).Draw(t, "budget")
			r.budget = memory
		}
		var all []byte // bytes written; offsets are indexes
		var writing *chunk
		finished := false
		piece := maxPiece
		end := func() uint64 {
			if finished {
				return uint64(len(all)) + 1
			}
			return uint64(len(all))
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				if finished {
					return
				}
				p := bytes.Repeat([]byte{byte(len(all))}, rapid.IntRange(0, 100<<10).Draw(t, "size")>>rapid.IntRange(0, 16).Draw(t, "shift"))
				n := r.write(p)
				all = append(all, p[:n]...)
				require.True(t, n == len(p) || r.room() == 0 || memory.limit-memory.used < largeChunk, "%d of %d", n, len(p))
				require.True(t, n > 0 || len(p) == 0 || r.held > 0 || r.room() == 0, "a first byte has room")
			},
			"finish": func(t *rapid.T) {
				if !finished && rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					finished = true
					r.finish()
				}
			},
			"next": func(t *rapid.T) {
				if writing != nil || r.unsent == nil {
					return
				}
				from, size := r.sent, r.nextSize(piece)
				var segments []byte
				segments, writing = r.next(kindData, 1, piece)
				require.LessOrEqual(t, len(segments), size)
				require.True(t, len(segments) == size || r.budget != nil && len(segments) == smallChunk)
				require.LessOrEqual(t, size, piece)
				data, offsets := sent(t, segments)
				require.Equal(t, from+offsets, r.sent)
				require.True(t, bytes.Equal(all[from:from+uint64(len(data))], data), "from %d", from)
			},
			"piece": func(t *rapid.T) { piece = rapid.IntRange(minPiece, maxPiece).Draw(t, "piece") },
			"done": func(*rapid.T) {
				if writing != nil {
					r.done(writing)
					writing = nil
				}
			},
			"ack": func(t *rapid.T) {
				r.ack(rapid.Uint64Range(0, r.sent).Draw(t, "to"))
			},
			"rewind": func(t *rapid.T) {
				if writing == nil {
					r.rewind(rapid.Uint64Range(r.acked, r.reached).Draw(t, "to"))
				}
			},
			"": func(t *rapid.T) {
				require.Equal(t, end(), r.end)
				require.LessOrEqual(t, r.held, r.limit+headerSize, "the FIN may be beyond")
				require.True(t, r.acked <= r.sent && r.sent <= r.reached && r.reached <= r.end)
				require.Equal(t, r.sent == r.end, r.unsent == nil)
				held, kept, uncounted := 0, 0, 0
				for c := r.head; c != nil; c = c.next {
					held += c.w - c.first
					kept += len(c.buf)
					if !c.counted {
						uncounted += len(c.buf)
					}
				}
				require.LessOrEqual(t, memory.used, memory.limit)
				require.True(t, r.budget == nil || uncounted <= 2*smallChunk, "all but the first small chunk, and a FIN's, is counted")
				require.Equal(t, held, r.held)
				require.LessOrEqual(t, kept, 2*r.held+2*largeChunk, "memory follows the bytes")
			},
		})
		if writing != nil {
			r.done(writing)
		}
		r.drop()
		require.Zero(t, memory.used)
	})
}
