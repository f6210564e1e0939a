package bulk

import (
	"net"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/procs"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

func TestMain(m *testing.M) {
	procs.Parallel(8)
	procs.One()
	goleak.VerifyTestMain(m)
}

// pair is two sides of a session over links.
type pair struct {
	*peerlanetest.Sessions

	limited atomic.Bool // further carriers say that they are
	resets  atomic.Bool // further carriers can be reset
}

// newPair opens a session. Both sides are closed when the test ends.
func newPair(t *testing.T, o peerlanetest.SessionsOptions, cfg session.Config) *pair {
	t.Helper()
	p := new(pair)
	o.Config, o.Wrap = cfg, func(here, there net.Conn) (net.Conn, net.Conn) {
		switch {
		case p.resets.Load():
			return resetConn{here.(*faultnet.Conn)}, resetConn{there.(*faultnet.Conn)}
		case p.limited.Load():
			return limitedConn{here}, there
		}
		return here, there
	}
	p.Sessions = peerlanetest.NewSessions(t, &o)
	return p
}

// limitedConn is a carrier that lets through so much only.
type limitedConn struct{ net.Conn }

func (limitedConn) Limited() bool { return true }

// resetConn is a carrier that can end otherwise than in order.
type resetConn struct{ *faultnet.Conn }

func (c resetConn) Reset(codes.Code) error {
	c.Link().Cut()
	return nil
}

// lanes opens a lane from alice to bob, and returns both ends.
func (p *pair) lanes(t *testing.T, opts *Options) (here, there *Lane) {
	t.Helper()
	got := make(chan *Lane, 1)
	over := make(chan struct{})
	Handle(p.ToBob, "lane", nil, func(l *Lane) {
		got <- l
		<-over
	})
	here, err := Open(t.Context(), p.Alice, "lane", opts)
	require.NoError(t, err)
	there = <-got
	t.Cleanup(func() {
		_, _ = here.Close(), there.Close()
		close(over)
	})
	return here, there
}

// kinds are the lanes that must behave alike.
var kinds = map[string]*Options{
	"shared":                           nil,
	"shared, compressed":               {Compress: true},
	"dedicated":                        {Mode: Dedicated},
	"dedicated, compressed":            {Mode: Dedicated, Compress: true},
	"dedicated, 4 strands":             {Mode: Dedicated, Strands: 4},
	"dedicated, 3 strands, compressed": {Mode: Dedicated, Strands: 3, Compress: true},
}
