package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/internal/pause"
	"github.com/peerlane/peerlane/session"
)

// pingCmd is peerlane ping.
type pingCmd struct {
	peerFlags
	Count    int           `short:"c" default:"4" help:"How many pings."`
	Interval time.Duration `short:"i" default:"1s" help:"Time between two pings."`
}

// Run opens a session, and pings on it. --timeout is for connecting, and for each ping.
func (c *pingCmd) Run(ctx context.Context, std stdio) (err error) {
	if c.Count < 1 || c.Interval < 0 {
		return fmt.Errorf("%w: --count must be at least 1, and --interval not negative", errUsage)
	}
	cl, err := c.dial(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.hangUp()) }()
	s, err := c.connect(ctx, cl)
	if err != nil {
		return err
	}
	return c.pings(ctx, std, s)
}

// pings pings on a session, and says over which path, again when that changes.
func (c *pingCmd) pings(ctx context.Context, std stdio, s *session.Session) (err error) {
	sealed := "not sealed"
	if s.Snapshot().Sealed {
		sealed = "sealed"
	}
	path := peerlane.PathOf(s)
	path.RTT = 0 // follows
	fmt.Fprintf(std.out, "%s: %s, %s\n", s.Peer(), pathText(path), sealed)
	times := make([]time.Duration, c.Count)
	for i := range times {
		if i > 0 {
			if err := pause.For(ctx, c.Interval); err != nil {
				return err
			}
		}
		if times[i], err = c.once(ctx, s); err != nil {
			return err
		}
		now := peerlane.PathOf(s)
		if kindText(now) != kindText(path) || now.Relayed && i == len(times)-1 {
			fmt.Fprintf(std.out, "path     %s\n", pathText(now))
		}
		path = now
		fmt.Fprintf(std.out, "%d: %s\n", i+1, shortTime(times[i]))
	}
	slices.Sort(times)
	_, err = fmt.Fprintf(std.out, "%d pings: min %s, median %s, max %s\n",
		len(times), shortTime(times[0]), shortTime(times[len(times)/2]), shortTime(times[len(times)-1]))
	return err
}

func (c *pingCmd) connect(ctx context.Context, cl *client) (*session.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	return cl.Connect(ctx, cl.peer, cl.tag)
}

func (c *pingCmd) once(ctx context.Context, s *session.Session) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	rtt, err := s.Ping(ctx)
	if err != nil {
		return 0, &pingError{err}
	}
	return rtt, nil
}

// pingError is why a ping was not answered.
type pingError struct{ err error }

func (e *pingError) Error() string { return e.err.Error() }
func (e *pingError) Unwrap() error { return e.err }

// shortTime returns d with three digits.
func shortTime(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d us", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
