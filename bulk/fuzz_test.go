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

// What is read is written the same, unknown capabilities aside.
func FuzzHello(f *testing.F) {
	for _, test := range goldenHellos {
		f.Add(test.h.append(nil))
	}
	f.Add([]byte("GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		h, err := readHello(bytes.NewReader(wire))
		if err == nil {
			want := bytes.Clone(wire[:helloSize])
			want[6] &= capZstd
			require.Equal(t, want, h.append(nil))
		}
	})
}

// A block has what it says, and is written the same if it is not compressed.
func FuzzBlock(f *testing.F) {
	for _, test := range goldenBlocks {
		f.Add(test.b)
	}
	f.Add(rawZstd(1, pack(theBytes(5000)), 5000))
	f.Add(rawZstd(1, pack(make([]byte, maxBlock)), maxBlock))
	f.Fuzz(func(t *testing.T, wire []byte) {
		b, k, err := readBlock(bytes.NewReader(wire), &unpacker{zstd: true})
		if err != nil {
			require.Nil(t, b)
			return
		}
		if k.kind == blockEnd {
			require.Equal(t, wire[:blockHead], rawEnd(k.number))
			return
		}
		require.Len(t, b.raw, k.raw)
		require.LessOrEqual(t, len(b.raw), maxBlock)
		require.Len(t, b.room, blockHead+maxBlock)
		if k.kind == blockRaw {
			require.Equal(t, wire[:blockHead+k.length], rawBlock(k.number, string(b.raw)))
		}
		b.free()
	})
}

// Whatever comes on the strands, a lane neither panics nor hangs, keeps a block for each strand at most and what it reads is in
// order; once it is closed nothing of it runs.
func FuzzStrand(f *testing.F) {
	f.Add(append(rawBlock(0, "a"), rawEnd(2)...), rawBlock(1, "b"), rawBlock(5, "c"), false)
	f.Add(append(rawBlock(0, "a"), rawBlock(0, "b")...), rawEnd(1), []byte{}, true)
	f.Add(rawZstd(0, pack(theBytes(5000)), 5000), rawZstd(1, pack(theBytes(100)), 101), rawEnd(0), true)
	f.Add(rawBlock(9, "a"), rawBlock(8, "b"), rawBlock(7, "c"), true)
	f.Fuzz(func(t *testing.T, a, b, c []byte, half bool) {
		synctest.Test(t, func(t *testing.T) {
			lane, far := rawLane(true, 3, faultnet.LinkOptions{})
			for i, wire := range [][]byte{a, b, c} {
				go func() {
					_, _ = far[i].Write(wire)
					if half {
						_ = far[i].CloseWrite()
					}
				}()
			}
			synctest.Wait()
			lane.mu.Lock()
			require.LessOrEqual(t, len(lane.held), 3)
			lane.mu.Unlock()
			require.NoError(t, lane.SetReadDeadline(time.Now().Add(time.Second)))
			_, err := io.Copy(io.Discard, lane)
			if half {
				require.True(t, err == nil || errors.Is(err, errProtocol) || errors.Is(err, io.ErrUnexpectedEOF), "%v", err)
			}
			require.NoError(t, lane.Close())
			for i := range far {
				_ = far[i].Close()
			}
			<-lane.done
			require.Empty(t, lane.held)
			require.Zero(t, lane.running)
			synctest.Wait()
		})
	})
}
