package flow

import (
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/traffic"
)

func TestWhoGetsBytesSaysSoUnasked(t *testing.T) {
	for _, unasked := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			f := New(&Config{Unasked: unasked})
			a, b := faultnet.Pipe(faultnet.LinkOptions{})
			require.NoError(t, f.Attach(a, 0, false))
			go func() { _, _ = io.Copy(io.Discard, readerOf(f)) }()
			read := func() (h header, err error) {
				var buf [headerSize]byte
				require.NoError(t, b.SetReadDeadline(time.Now().Add(time.Minute)))
				_, err = io.ReadFull(b, buf[:])
				return headerOf(buf[:]), err
			}
			h, err := read()
			require.NoError(t, err)
			require.Equal(t, header{kind: kindStart}, h)
			put := func(h header, data string) {
				_, err := b.Write(append(h.append(nil), data...))
				require.NoError(t, err)
			}
			put(header{kind: kindStart}, "")
			put(header{kind: kindData, length: 10}, "01234")
			began := time.Now()
			h, err = read()
			if unasked == 0 {
				require.Error(t, err, "nobody has asked")
			} else {
				require.NoError(t, err)
				require.Equal(t, unasked, time.Since(began))
				require.Equal(t, header{kindData, 0, 5}, h, "also in the middle of a segment")
				_, err = read()
				require.Error(t, err, "once")
				_, err = b.Write([]byte("56789"))
				require.NoError(t, err)
				h, err = read()
				require.NoError(t, err)
				require.Equal(t, header{kindData, 0, 10}, h)
				put(header{kind: kindData}, "") // a sign of life, which is not answered by another
				_, err = read()
				require.Error(t, err)
			}
			f.Close(net.ErrClosed)
			f.Wait()
			_ = b.Close()
		})
	}
}

// A Write that waits for an acknowledgement which the other side's own bytes hold up is not stuck, until so many have come that it
// cannot be behind them.
func TestAnAcknowledgementBehindManyBytesIsNotMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(&Config{Window: MinWindow, ResumeWindow: time.Hour})
		a, b := faultnet.Pipe(faultnet.LinkOptions{Buffer: 1 << 20})
		require.NoError(t, f.Attach(a, 0, false))
		go func() { _, _ = io.Copy(io.Discard, b) }()
		var running sync.WaitGroup
		running.Go(func() { _, _ = io.Copy(io.Discard, readerOf(f)) })
		running.Go(func() { _, _ = f.Write(make([]byte, 10*MinWindow)) })
		put := func(n int) {
			_, err := b.Write(append(header{kind: kindData, length: n}.append(nil), make([]byte, n)...))
			require.NoError(t, err)
			synctest.Wait()
		}
		_, err := b.Write(header{kind: kindStart}.append(nil))
		require.NoError(t, err)
		for range 60 {
			time.Sleep(time.Second)
			put(8 << 10)
		}
		require.Zero(t, f.Stuck(), "its bytes fill the way back")
		for range 60 {
			time.Sleep(time.Second)
			put(13) // as a PING
		}
		require.Equal(t, time.Minute, f.Stuck(), "nothing is in the way")
		for range mostBehind >> 20 {
			put(1 << 20)
		}
		for range 10 {
			time.Sleep(time.Second)
			put(8 << 10)
		}
		require.GreaterOrEqual(t, f.Stuck(), time.Minute+10*time.Second, "it would have come before so many")
		f.Close(net.ErrClosed)
		running.Wait()
		f.Wait()
		_ = b.Close()
	})
}

func TestPiecesTakeHalfASecondAtTheRateMeasured(t *testing.T) {
	for _, rate := range []int{2 << 10, 16 << 10, 100 << 10, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			opts := faultnet.LinkOptions{Rate: rate, Buffer: 1 << 20}
			a, b := faultnet.Pipe(opts)
			f, peer := New(nil), New(&Config{Unasked: PieceTime})
			backlog, known := f.Backlog()
			require.Zero(t, backlog)
			require.True(t, known)
			require.Equal(t, maxPiece-headerSize, f.Piece(), "nothing is known")
			require.NoError(t, f.Attach(a, 0, false))
			require.NoError(t, peer.Attach(b, 0, false))
			var running sync.WaitGroup
			for _, f := range []*Flow{f, peer} {
				running.Go(func() { _, _ = io.Copy(io.Discard, readerOf(f)) })
			}
			_, err := f.Write(make([]byte, 512<<10))
			require.NoError(t, err)
			synctest.Wait()
			_, known = f.Backlog()
			require.False(t, known, "nothing is acknowledged yet")
			time.Sleep(10 * time.Second)
			want := min(max(rate/2, minPiece), maxPiece)
			require.InDelta(t, want, f.Piece(), float64(want)/5)
			sum, n := 0.0, 0
			for at := 10; at < 20 && at < (512<<10)/rate; at++ {
				backlog, known = f.Backlog()
				require.True(t, known)
				sum, n = sum+backlog.Seconds()-float64((512<<10)/rate-at), n+1
				time.Sleep(time.Second)
			}
			if n > 0 { // at 2 KiB/s one measurement is one of a few pieces, and by turns too high and too low
				require.InDelta(t, 0, sum/float64(n), float64((512<<10)/rate)/5)
			}
			for _, f := range []*Flow{f, peer} {
				f.Close(net.ErrClosed)
			}
			running.Wait()
			f.Wait()
			peer.Wait()
		})
	}
}

// What was kept as one long segment leaves as several on a slow carrier, so that other words have a place between them.
func TestALongSegmentLeavesInPieces(t *testing.T) {
	r := &replay{limit: 1 << 20}
	p := traffic.Bytes(1, 100_000)
	r.write(p)
	var got []byte
	number := uint64(7)
	for r.unsent != nil {
		size := r.nextSize(minPiece)
		b, c := r.next(kindAsk, number, minPiece)
		require.Len(t, b, size)
		require.LessOrEqual(t, len(b), minPiece)
		h := headerOf(b)
		require.Equal(t, header{kindAsk, len(b) - headerSize, number}, h)
		got = append(got, b[headerSize:]...)
		r.done(c)
		number++
	}
	require.Equal(t, p, got)
	r.rewind(50_000)
	b, c := r.next(kindData, 1, maxPiece)
	require.Equal(t, p[50_000:], b[headerSize:])
	r.done(c)
	r.drop()
}
