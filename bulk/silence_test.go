package bulk

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// freeze silences every link there is, and those to come, for d.
func (p *pair) freeze(d time.Duration) {
	p.Freeze()
	time.Sleep(d)
	p.Thaw()
}

// A wire that falls silent while a lane opens costs the time of the silence, whenever it begins; and a refusal is the application's.
func TestAnOpenOutlivesASilentWire(t *testing.T) {
	for name, opts := range map[string]Options{"shared": {}, "shared, compressed": {Compress: true}, "dedicated": {Mode: Dedicated}} {
		for _, refused := range []bool{false, true} {
			for at := range 12 {
				if opts.Mode == Dedicated && at < 2 {
					continue // its own hello has not come then: the opener's Config.HandshakeTimeout is for that
				}
				t.Run(fmt.Sprint(name, refused, at), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						p := newPair(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{HandshakeTimeout: time.Minute})
						asked := false
						Handle(p.ToBob, "lane", func(AcceptInfo) (*Options, error) {
							asked = true
							if refused {
								return nil, errors.New("no")
							}
							return &Options{Compress: true}, nil
						}, func(l *Lane) { _, _ = io.Copy(l, l) })
						opened := make(chan error)
						go func() {
							opts.HandshakeTimeout = time.Minute
							l, err := Open(t.Context(), p.Alice, "lane", &opts)
							if err == nil {
								_, err = l.Write([]byte("x"))
							}
							if err == nil {
								_, err = io.ReadFull(l, make([]byte, 1))
							}
							if err == nil {
								err = l.Close()
							}
							opened <- err
						}()
						time.Sleep(time.Duration(at) * time.Millisecond / 2)
						p.freeze(7 * time.Second)
						err := <-opened
						require.True(t, asked)
						if refused {
							require.ErrorIs(t, err, ErrNotTaken)
						} else {
							require.NoError(t, err)
						}
					})
				})
			}
		}
	}
}
