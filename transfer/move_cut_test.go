package transfer_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
)

// Lanes that move with their session, and are cut meanwhile, lose nothing.
func TestATransferSurvivesMovesAndCuts(t *testing.T) {
	const size = 6 << 20
	from := write(t, content{"large": size, "b": 70000, "c": 300000, "d/e": 9, "f": 65537})
	for way := range ways {
		for n := range uint64(10) {
			t.Run(fmt.Sprintf("%s, %d", way, n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					random := rand.New(rand.NewPCG(*seed, n))
					var now atomic.Pointer[pathBytes]
					now.Store(new(pathBytes))
					p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{
						Delay: time.Duration(1+random.IntN(40)) * time.Millisecond, Rate: size / 4, CutDelivers: n%2 == 0,
						Wrap: func(here, there net.Conn) (net.Conn, net.Conn) {
							on := now.Load()
							return &onPath{here, on}, &onPath{there, on}
						},
					})
					stop, moving := make(chan struct{}), make(chan struct{})
					go func() {
						defer close(moving)
						for range 25 {
							select {
							case <-time.After(time.Duration(random.IntN(600)) * time.Millisecond):
							case <-stop:
								return
							}
							switch random.IntN(4) {
							case 0:
								links := p.Links()
								links[random.IntN(len(links))].Cut()
							case 1:
								links := p.Links()
								links[len(links)-1].CutAfter(random.Int64N(300000))
							default:
								now.Store(new(pathBytes))
								_ = p.Alice.Reconnect(t.Context()) // a cut may end it
							}
						}
					}()
					to := t.TempDir()
					result, err := run(t.Context(), t, way, p, again(t, p), walk(t, from), to)
					close(stop)
					<-moving
					require.NoError(t, err)
					same(t, from, filepath.Join(to, "tree"))
					require.Equal(t, result.Progress.Bytes, result.Progress.Durable)
				})
			})
		}
	}
}
