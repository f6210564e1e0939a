package record

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// In the steady state records cost no allocation on either side, from WriteBatch to the acknowledgement, riding or alone.
func TestWriteBatchAndReadBatchDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("under -race, sync.Pool drops buffers at random; the step without it counts")
	}
	for _, size := range []int{0, 1, 128, 4 << 10, 20 << 10} {
		for _, noBatchAck := range []bool{false, true} {
			a, b, stop := connected(t, &Options{NoBatchAck: noBatchAck})
			const records = 8
			payloads := make([][]byte, records)
			for i := range payloads {
				payloads[i] = make([]byte, size)
			}
			ctx := context.Background()
			dst := make([]Record, records)
			turn := func() {
				for _, way := range [][2]*Stream{{a, b}, {b, a}} {
					last, err := way[0].WriteBatch(ctx, payloads)
					for n := 0; err == nil && n < records; {
						var k int
						k, err = way[1].ReadBatch(ctx, dst)
						n += k
					}
					if err == nil {
						err = way[1].AckRecord(last)
					}
					if err != nil {
						panic(err)
					}
				}
			}
			for range 100 {
				turn()
			}
			each := testing.AllocsPerRun(500, turn)
			require.Zero(t, each, "%d records of %d bytes, riding acknowledgements %v", records, size, !noBatchAck)
			stop()
		}
	}
}

// WriteRecord allocates nothing, and ReadRecord the payload that it gives away.
func TestWriteRecordAndReadRecordAllocateThePayload(t *testing.T) {
	if raceEnabled {
		t.Skip("under -race, sync.Pool drops buffers at random; the step without it counts")
	}
	a, b, stop := connected(t, nil)
	defer stop()
	ctx := context.Background()
	payload := make([]byte, 100)
	turn := func() {
		seq, err := a.WriteRecord(ctx, payload)
		if err == nil {
			_, err = b.ReadRecord(ctx)
		}
		if err == nil {
			err = b.AckRecord(seq)
		}
		if err != nil {
			panic(err)
		}
	}
	for range 100 {
		turn()
	}
	require.LessOrEqual(t, testing.AllocsPerRun(500, turn), 2.0)
}

// connected returns two streams over a pipe.
func connected(t *testing.T, opts *Options) (a, b *Stream, stop func()) {
	near, far := net.Pipe()
	accepted := make(chan *Stream, 1)
	go func() {
		s, err := AcceptConn(context.Background(), far, opts)
		if err != nil {
			panic(err)
		}
		accepted <- s
	}()
	a, err := OpenConn(t.Context(), near, opts)
	require.NoError(t, err)
	b = <-accepted
	return a, b, func() {
		_ = a.Close()
		require.NoError(t, b.Close())
	}
}
