package bulk_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/session"
)

const tag = "/bulk/1.0.0"

// road is a session of two hosts.
type road struct {
	server  *peerlane.Server
	session *session.Session
	call    func(ctx context.Context, request []byte) ([]byte, error)
}

// newRoad opens a session, sealed or not.
func newRoad(t testing.TB, tr testnet.Transport, sealed bool) *road {
	x, y := testnet.Pair(t, tr)
	server, err := peerlane.NewServer(y, &peerlane.ServerConfig{AdmitAll: true, MaxRequestsPerConn: math.MaxInt})
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Stop() })
	client, err := peerlane.NewClient(x, &peerlane.ClientConfig{AdmitAll: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	if sealed {
		require.NoError(t, peerlane.UseModernPSKServer(server, []byte("a secret of thirty-two bytes....."), nil))
		require.NoError(t, peerlane.UseModernPSKClient(client, []byte("a secret of thirty-two bytes....."), nil))
	}
	require.NoError(t, server.Start(tag, func(request []byte) ([]byte, error) { return request, nil }))
	s, err := client.Connect(t.Context(), y.ID(), tag)
	require.NoError(t, err)
	return &road{server, s, func(ctx context.Context, request []byte) ([]byte, error) {
		return s.Call(ctx, "", request)
	}}
}

func TestAbortTellsThePeerTheCodeOverLibp2p(t *testing.T) {
	for _, tr := range []testnet.Transport{testnet.TCPTLS, testnet.QUIC} {
		for name, opts := range map[string]*bulk.Options{
			"shared": nil, "dedicated": {Mode: bulk.Dedicated}, "strands": {Mode: bulk.Dedicated, Strands: 4},
		} {
			t.Run(string(tr)+"/"+name, func(t *testing.T) {
				r := newRoad(t, tr, false)
				ended := make(chan error, 1)
				bulk.Handle(r.server, "sink", nil, func(l *bulk.Lane) {
					_, err := io.Copy(io.Discard, l)
					ended <- err
				})
				l, err := bulk.Open(t.Context(), r.session, "sink", opts)
				require.NoError(t, err)
				_, err = l.Write(make([]byte, 1<<20))
				require.NoError(t, err)
				require.NoError(t, l.Abort(codes.TooLarge))
				require.ErrorIs(t, <-ended, session.ErrTooLarge)
			})
		}
	}
}

// A peer that reads no more ends the way out alone: its answer still comes, also over QUIC, where the write fails by a reset.
func TestAPeerThatReadsNoMoreStillAnswersOverQUIC(t *testing.T) {
	for name, opts := range map[string]*bulk.Options{
		"dedicated": {Mode: bulk.Dedicated}, "strands": {Mode: bulk.Dedicated, Strands: 3}, "zstd": {Mode: bulk.Dedicated, Compress: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoad(t, testnet.QUIC, false)
			refused := make(chan bool)
			bulk.Handle(r.server, "sink", nil, func(l *bulk.Lane) {
				_, _ = l.Read(make([]byte, 10))
				_ = l.CloseRead()
				<-refused
				_, _ = l.Write([]byte("enough"))
			})
			l, err := bulk.Open(t.Context(), r.session, "sink", opts)
			require.NoError(t, err)
			defer func() { _ = l.Close() }()
			for body := make([]byte, 1<<20); err == nil; {
				_, err = rand.Read(body)
				require.NoError(t, err)
				_, err = l.Write(body)
			}
			require.ErrorIs(t, err, syscall.ECONNRESET)
			close(refused)
			answer, err := io.ReadAll(l)
			require.NoError(t, err)
			require.Equal(t, "enough", string(answer))
		})
	}
}

// Strands share the window of their QUIC connection: blocks that wait for their turn must leave room there for the one that is due.
func TestStrandsLeaveRoomForTheBlockThatIsDue(t *testing.T) {
	t.Parallel() // beside those that wait for real
	for _, tr := range []testnet.Transport{testnet.TCPTLS, testnet.QUIC} {
		for _, strands := range []int{2, 4, 16} {
			t.Run(fmt.Sprintf("%s/%d", tr, strands), func(t *testing.T) {
				r := newRoad(t, tr, false)
				const blocks = 200
				drained := make(chan int64, 1)
				bulk.Handle(r.server, "sink", nil, func(l *bulk.Lane) { drained <- drain(l) })
				l, err := bulk.Open(t.Context(), r.session, "sink", &bulk.Options{Mode: bulk.Dedicated, Strands: strands})
				require.NoError(t, err)
				body := make([]byte, pourSize)
				for range blocks {
					_, err := l.Write(body)
					require.NoError(t, err)
				}
				require.NoError(t, l.Close())
				require.EqualValues(t, blocks*pourSize, <-drained)
			})
		}
	}
}

// BenchmarkBulk measures one direction of lanes in writes of 256 KiB beside a raw libp2p stream.
func BenchmarkBulk(b *testing.B) {
	for _, tr := range []testnet.Transport{testnet.TCPTLS, testnet.QUIC} {
		b.Run(string(tr)+"/raw", func(b *testing.B) { benchmarkRaw(b, tr) })
		for _, kind := range []struct {
			name   string
			sealed bool
			opts   *bulk.Options
		}{
			{"dedicated", false, &bulk.Options{Mode: bulk.Dedicated}},
			{"sealed", true, &bulk.Options{Mode: bulk.Dedicated}},
			{"shared", false, nil},
			{"strands", false, &bulk.Options{Mode: bulk.Dedicated, Strands: 4}},
			{"zstd", false, &bulk.Options{Compress: true}},
		} {
			b.Run(string(tr)+"/"+kind.name, func(b *testing.B) {
				r := newRoad(b, tr, kind.sealed)
				drained := make(chan int64, 1)
				bulk.Handle(r.server, "sink", nil, func(l *bulk.Lane) { drained <- drain(l) })
				l, err := bulk.Open(context.Background(), r.session, "sink", kind.opts)
				require.NoError(b, err)
				pour(b, l, drained)
			})
		}
	}
}

const pourSize = 256 << 10

func drain(r io.Reader) int64 {
	n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, pourSize))
	return n
}

type halfCloser interface {
	io.WriteCloser
	CloseWrite() error
}

func pour(b *testing.B, w halfCloser, drained <-chan int64) {
	body := make([]byte, pourSize)
	b.SetBytes(pourSize)
	b.ResetTimer()
	for range b.N {
		if _, err := w.Write(body); err != nil {
			b.Fatal(err)
		}
	}
	require.NoError(b, w.CloseWrite())
	require.Equal(b, int64(b.N)*pourSize, <-drained)
	b.StopTimer()
	_ = w.Close()
}

func benchmarkRaw(b *testing.B, tr testnet.Transport) {
	x, y := testnet.Pair(b, tr)
	drained := make(chan int64, 1)
	y.SetStreamHandler("/raw", func(s network.Stream) {
		drained <- drain(s)
		_ = s.Close()
	})
	s, err := x.NewStream(context.Background(), y.ID(), "/raw")
	require.NoError(b, err)
	pour(b, s, drained)
}

// BenchmarkSendBesideBulk measures the round trip of a call alone, and while a lane is full.
func BenchmarkSendBesideBulk(b *testing.B) {
	for _, mode := range []bulk.Mode{bulk.Shared, bulk.Dedicated} {
		b.Run(fmt.Sprint(mode), func(b *testing.B) {
			r := newRoad(b, testnet.TCPTLS, false)
			idle := percentile(b, r, 2000)
			drained := make(chan int64, 1)
			bulk.Handle(r.server, "sink", nil, func(l *bulk.Lane) { drained <- drain(l) })
			l, err := bulk.Open(context.Background(), r.session, "sink", &bulk.Options{Mode: mode})
			require.NoError(b, err)
			go func() { // ends with the lane
				for body := make([]byte, pourSize); ; {
					if _, err := l.Write(body); err != nil {
						return
					}
				}
			}()
			b.ResetTimer()
			busy := percentile(b, r, max(b.N, 500))
			b.StopTimer()
			_ = l.Abort(codes.Cancelled)
			b.ReportMetric(float64(<-drained)/1e6/b.Elapsed().Seconds(), "MB/s")
			b.ReportMetric(float64(busy)/float64(idle), "p99/idle")
			b.ReportMetric(float64(busy)/1e3, "p99-us")
		})
	}
}

// percentile returns the 99th percentile of n calls.
func percentile(b *testing.B, r *road, n int) time.Duration {
	times := make([]time.Duration, n)
	for i := range times {
		began := time.Now()
		_, err := r.call(context.Background(), make([]byte, 128))
		require.NoError(b, err)
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	return times[n*99/100]
}
