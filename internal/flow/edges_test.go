package flow

import (
	"net"
	"testing"
	"testing/synctest"

	"github.com/peerlane/peerlane/internal/test/edges"
)

func TestNoConfigIsAPanic(t *testing.T) {
	edges.Each(nil, func(cfg Config, what string) {
		t.Log(what)
		synctest.Test(t, func(t *testing.T) {
			cfg.Drop, cfg.Lazy = nil, nil
			f := New(&cfg)
			here, there := net.Pipe()
			if f.Attach(here, 0, false) == nil {
				go func() { _, _ = f.Read(make([]byte, 10)) }()
				go func() { _, _ = f.Write(make([]byte, 3000)) }()
				_, _ = there.Read(make([]byte, 100))
				synctest.Wait()
			}
			_ = there.Close()
			f.Detach(errRefused)
			f.Close(errRefused)
			f.Wait()
		})
	})
}
