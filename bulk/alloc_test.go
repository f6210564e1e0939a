package bulk

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/session"
)

// pipeStrand is a pipe as a strand: its end ends it both ways.
type pipeStrand struct{ net.Conn }

func (s pipeStrand) CloseWrite() error      { return nil }
func (s pipeStrand) CloseRead() error       { return s.Close() }
func (s pipeStrand) Reset(codes.Code) error { return s.Close() }

func requireNoAllocs(t *testing.T, what string, w io.Writer, r io.Reader, size int) {
	body, got := make([]byte, size), make([]byte, size)
	turn := func() {
		if _, err := w.Write(body); err != nil {
			panic(err)
		}
		if _, err := io.ReadFull(r, got); err != nil {
			panic(err)
		}
	}
	for range 50 {
		turn()
	}
	require.Less(t, testing.AllocsPerRun(200, turn), 1.0, "%s, %d bytes", what, size)
}

// In the steady state a block costs no allocation on either side.
func TestBlocksDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("under -race, sync.Pool drops buffers at random; the step without it counts")
	}
	for _, zstd := range []bool{false, true} {
		here, there := newFramed(zstd, 2), newFramed(zstd, 2)
		for i := range 2 {
			a, b := net.Pipe()
			here.join(i, pipeStrand{a})
			there.join(i, pipeStrand{b})
		}
		for _, size := range []int{1, 1000, maxBlock} {
			requireNoAllocs(t, "blocks", here, there, size)
		}
		_, _ = here.Close(), there.Close()
		<-here.done
		<-there.done
	}
}

// A plain lane adds nothing to its stream.
func TestPlainLanesDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("under -race, sync.Pool drops buffers at random; the step without it counts")
	}
	mux := session.NewMux()
	bob, err := session.NewAcceptor(&session.AcceptorConfig{Config: session.Config{Local: "bob", Mux: mux}})
	require.NoError(t, err)
	open := func(context.Context, session.Want) (net.Conn, error) {
		near, far := net.Pipe()
		go func() { _ = bob.Serve(far, "alice") }()
		return near, nil
	}
	conn, _ := open(t.Context(), session.Want{})
	s, err := session.Dial(t.Context(), conn, "bob", open, &session.Config{Local: "alice"})
	require.NoError(t, err)
	defer func() {
		_ = s.Close()
		<-s.Done()
	}()
	for _, mode := range []Mode{Shared, Dedicated} {
		got, over := make(chan *Lane), make(chan bool)
		Handle(mux, "lane", nil, func(l *Lane) {
			got <- l
			<-over
		})
		here, err := Open(t.Context(), s, "lane", &Options{Mode: mode})
		require.NoError(t, err)
		require.Equal(t, mode, here.Snapshot().Mode)
		there := <-got
		arrived := make(chan int)
		go func() { // ends with the lane: a pipe has no buffer, so somebody reads while the other writes
			b := make([]byte, 1<<10)
			for {
				n, err := io.ReadFull(there, b)
				if err != nil {
					return
				}
				arrived <- n
			}
		}()
		body := make([]byte, 1<<10)
		turn := func() {
			if _, err := here.Write(body); err != nil {
				panic(err)
			}
			<-arrived
		}
		for range 2000 {
			turn()
		}
		require.Less(t, testing.AllocsPerRun(2000, turn), 0.2, "%v: the session's own, for credit, aside", mode)
		_ = here.Close()
		close(over)
	}
}
