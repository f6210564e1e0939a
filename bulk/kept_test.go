package bulk

import (
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// pattern returns n bytes that zstd cannot shrink to nothing.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * i >> 7)
	}
	return b
}

// A block that a strand could not take is named by Close, also on a lane of which this side reads no more and so does not see the loss.
//
// Row: N12
func TestCloseNamesTheBlockThatCouldNotLeave(t *testing.T) {
	for _, opts := range []*Options{{Mode: Dedicated, Compress: true}, {Mode: Dedicated, Strands: 3}} {
		t.Run(fmt.Sprint(*opts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{})
				here, there := p.lanes(t, opts)
				require.NoError(t, here.CloseRead())
				for _, l := range p.Links()[1:] { // those of the strands
					l.Cut()
				}
				synctest.Wait()
				n, err := here.Write([]byte("word"))
				require.NoError(t, err)
				require.Equal(t, 4, n)
				err = here.Close()
				_, failed := there.Read(make([]byte, 4))
				require.Error(t, failed)
				var e *session.Error
				require.ErrorAs(t, err, &e)
				require.NotEqual(t, session.Delivered, e.Outcome)
			})
		})
	}
}

// What has come on a lane can still be read when this side has closed the session, as on a stream: the writer's Close may have said that
// it is here.
//
// Row: N12
func TestWhatHasComeOnALaneIsReadAfterTheSession(t *testing.T) {
	for name, opts := range map[string]*Options{"plain": nil, "in blocks": {Compress: true}} {
		for _, closes := range []string{"the reader", "the writer"} {
			for _, size := range []int{1000, 300_000} {
				t.Run(fmt.Sprint(name, closes, size), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						p := newPair(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{StreamWindow: 1 << 20})
						here, there := p.lanes(t, opts)
						body := pattern(size)
						for len(body) > 0 {
							n, err := there.Write(body[:min(len(body), 10_000)])
							require.NoError(t, err)
							body = body[n:]
						}
						time.Sleep(time.Second)
						if closes == "the writer" {
							go func() { _ = p.Bob.Close() }() // waits for what its handlers have
						} else {
							go func() { _ = p.Alice.Close() }() // likewise
						}
						time.Sleep(time.Minute)
						body, got := pattern(size), make([]byte, 0, size)
						b := make([]byte, 7000)
						var err error
						for err == nil {
							var n int
							n, err = here.Read(b)
							got = append(got, b[:n]...)
						}
						require.Equal(t, len(body), len(got), "then %v", err)
						require.Equal(t, body, got)
						if closes == "the writer" {
							require.Equal(t, io.EOF, err)
						} else {
							require.ErrorIs(t, err, session.ErrClosed)
						}
					})
				})
			}
		}
	}
}
