package resume

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// Claim: resume.ErrInvalid
func TestOptionsThatCannotWorkNameTheField(t *testing.T) {
	for field, o := range map[string]Options{
		"Options.Window is 4095":           {Window: minWindow - 1},
		"Options.Window is 67108865":       {Window: maxWindow + 1},
		"Options.Window is -1":             {Window: -1},
		"Options.ResumeWindow is 169h0m0s": {ResumeWindow: 169 * time.Hour},
		"Options.HandshakeTimeout is -1":   {HandshakeTimeout: -1},
		"Options.Heartbeat is 1ns":         {Heartbeat: 1},
		"Options.Backoff.Min is -1ns":      {Backoff: Backoff{Min: -1}},
		"Options.Backoff.Max is -1ns":      {Backoff: Backoff{Max: -1}},
		"Options.Backlog is -1":            {Backlog: -1},
	} {
		_, err := Dial(nil, &o)
		require.ErrorIs(t, err, ErrInvalid, field)
		require.ErrorContains(t, err, field)
		_, err = NewListener(nil, &o)
		require.ErrorIs(t, err, ErrInvalid, field)
	}
	for _, o := range []*Options{nil, {}, {Window: minWindow}, {Window: maxWindow, ResumeWindow: -1, CloseTimeout: -1, Heartbeat: -1, MaxConns: -1, MaxDetached: -1}} {
		got := o.withDefaults()
		require.NoError(t, got.validate(), "%+v", o)
	}
	given := Options{}
	given.withDefaults()
	require.Equal(t, Options{}, given, "the caller's is not touched")
}

// Row: S4 (Window is proved by TestWriteNeverLosesAndNeverOverflows and TestSlowReaderStopsTheWriter)
// Claim: resume.Options.ResumeWindow
func TestOptionPatience(t *testing.T) {
	for patience, want := range map[time.Duration]time.Duration{0: time.Minute, time.Second: time.Second, -1: 0} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, &Options{ResumeWindow: patience}, nil)
			say(t, p.client, p.server, "x")
			p.refuse(errRefused)
			start := time.Now()
			p.cutNewest()
			<-p.client.Done()
			<-p.server.Done()
			require.Equal(t, want, time.Since(start), "patience %v", patience)
		})
	}
}

// Row: S-g (of the dialing side by TestDialIsNotBlockedByASilentServer)
// Claim: resume.Options.HandshakeTimeout
func TestOptionHandshakeTimeoutOfTheListener(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{0: 5 * time.Second, time.Second: time.Second} {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			l, err := NewListener(h, &Options{HandshakeTimeout: timeout})
			require.NoError(t, err)
			c, err := h.dial(t.Context())
			require.NoError(t, err)
			start := time.Now()
			_, err = c.Read(make([]byte, 1))
			require.Error(t, err)
			require.Equal(t, want, time.Since(start))
			require.NoError(t, l.Close())
		})
	}
}

// Claim: resume.Options.CloseTimeout
func TestOptionCloseTimeout(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{0: 5 * time.Second, time.Second: time.Second, time.Hour: 8 * time.Second, -1: 0} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, &Options{CloseTimeout: timeout, ResumeWindow: 8 * time.Second}, nil)
			synctest.Wait()
			link, _ := p.newest()
			link.Freeze()
			_, err := p.client.Write([]byte("never arrives"))
			require.NoError(t, err)
			start := time.Now()
			require.NoError(t, p.client.Close())
			<-p.client.Done()
			require.Equal(t, want, time.Since(start), "CloseTimeout %v", timeout)
			require.Equal(t, "connected closed ", p.told.text())
			require.ErrorIs(t, p.told.last(), ErrLost)
		})
	}
}

// Claim: resume.Options.Heartbeat
func TestOptionHeartbeat(t *testing.T) {
	for heartbeat, want := range map[time.Duration]time.Duration{0: 20 * time.Second, time.Second: 2 * time.Second, -1: 0} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, &Options{Heartbeat: heartbeat}, &Options{Heartbeat: -1})
			say(t, p.server, p.client, "x")
			synctest.Wait()
			link, _ := p.newest()
			link.Vanish()
			start := time.Now()
			for p.told.text() == "connected " && time.Since(start) < time.Hour {
				time.Sleep(10 * time.Millisecond)
			}
			took := time.Since(start)
			if want == 0 {
				require.Equal(t, time.Hour, took, "never")
				return
			}
			require.True(t, took >= want && took <= want+want/2, "Heartbeat %v: %v", heartbeat, took)
		})
	}
}

// Claim: resume.Options.Backoff
func TestOptionBackoff(t *testing.T) {
	for b, most := range map[Backoff]int{{}: 60, {Min: 10 * time.Second, Max: 10 * time.Second}: 13, {Min: time.Millisecond, Max: time.Millisecond}: 1e6} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, &Options{Backoff: b}, nil)
			synctest.Wait()
			p.refuse(errRefused)
			p.cutNewest()
			<-p.client.Done()
			_, dials := p.newest()
			require.LessOrEqual(t, dials, 1+most, "%+v", b)
			require.Greater(t, dials, most/20, "%+v", b)
		})
	}
}

// Claim: resume.ErrBusy, resume.Options.MaxConns
func TestOptionMaxConns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil, &Options{MaxConns: 1})
		_, err := Dial(p.dial, nil)
		require.ErrorIs(t, err, ErrBusy)
		p.cutNewest() // of the one that was refused
		p.client.flow.Detach(errRefused)
		say(t, p.client, p.server, "to resume is no new conn")
		require.NoError(t, p.client.Close())
		require.NoError(t, p.server.Close())
		<-p.server.Done()
		again, err := Dial(p.dial, nil)
		require.NoError(t, err)
		s, err := p.l.Accept()
		require.NoError(t, err)
		_, _ = again.Close(), s.Close()
		<-again.Done()
		<-s.(*Conn).Done()
	})
}

func TestOptionBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		l, err := NewListener(h, &Options{Backlog: 2})
		require.NoError(t, err)
		var conns []net.Conn
		for range 2 {
			c, err := Dial(h.dial, nil)
			require.NoError(t, err)
			conns = append(conns, c)
		}
		_, err = Dial(h.dial, nil)
		require.ErrorIs(t, err, ErrBusy)
		s, err := l.Accept()
		require.NoError(t, err)
		c, err := Dial(h.dial, nil)
		require.NoError(t, err)
		require.NoError(t, l.Close())
		for _, c := range append(conns, c, s) {
			_ = c.Close()
			c.(*Conn).flow.Close(net.ErrClosed)
			<-c.(*Conn).Done()
		}
	})
}

// One too many ends the one of which nothing was heard, else the one that has waited longest.
// Claim: resume.Options.MaxDetached
func TestOptionMaxDetached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		l, err := NewListener(h, &Options{MaxDetached: 3})
		require.NoError(t, err)
		var servers []*Conn
		detach := func(heard bool) {
			c, _ := send(t, h, hello{kind: messageNew, buffer: minWindow, resumeWindow: 1e6})
			s, err := l.Accept()
			require.NoError(t, err)
			if heard {
				_, err = c.Write(header{kind: kindStart}.append(nil))
				require.NoError(t, err)
			}
			servers = append(servers, s.(*Conn))
			synctest.Wait()
			require.NoError(t, c.Close())
			synctest.Wait()
		}
		lost := func() (indexes []int) {
			for i, s := range servers {
				if s.flow.Err() != nil {
					indexes = append(indexes, i)
				}
			}
			return indexes
		}
		for _, heard := range []bool{true, true, false} {
			detach(heard)
		}
		require.Empty(t, lost())
		detach(true)
		require.Equal(t, []int{2}, lost(), "nothing was heard of it")
		detach(true)
		require.Equal(t, []int{0, 2}, lost(), "the longest")
		_, err = servers[0].Read(make([]byte, 1))
		require.ErrorIs(t, err, ErrLost)
		require.ErrorContains(t, err, "too many")
		require.NoError(t, l.Close())
		for _, s := range servers {
			<-s.Done()
		}
	})
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil, &Options{MaxDetached: -1})
		say(t, p.client, p.server, "x")
		p.refuse(errRefused)
		start := time.Now()
		p.cutNewest()
		<-p.server.Done()
		require.Zero(t, time.Since(start))
	})
}

// The callback may use the conn.
// Claim: resume.Options.OnState, resume.StateChange.Conn, resume.StateChange.Err, resume.StateChange.State
func TestOptionOnState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		l, err := NewListener(h, nil)
		require.NoError(t, err)
		var told []StateChange
		c, err := Dial(h.dial, &Options{OnState: func(s StateChange) {
			told = append(told, s)
			_ = s.Conn.LocalAddr()
			if s.State == StateDetached {
				_ = s.Conn.Close()
			}
		}})
		require.NoError(t, err)
		s, err := l.Accept()
		require.NoError(t, err)
		synctest.Wait()
		h.onLink(func(link *faultnet.Link) { link.Freeze() })
		link, _ := h.newest()
		link.Cut()
		<-c.Done()
		require.Len(t, told, 3)
		require.Equal(t, StateChange{c, StateConnected, nil}, told[0])
		require.Equal(t, StateDetached, told[1].State)
		require.Error(t, told[1].Err)
		require.Equal(t, StateClosed, told[2].State)
		_, _ = s.Close(), l.Close()
		<-s.(*Conn).Done()
	})
}

func TestTheDefaultsOfOptionsAreThoseThatTheyState(t *testing.T) {
	require.Equal(t, Options{
		Window: 1 << 20, ResumeWindow: time.Minute, HandshakeTimeout: 5 * time.Second, CloseTimeout: 5 * time.Second, Heartbeat: 10 * time.Second,
		MaxConns: 16384, MaxDetached: 1024, Backlog: 128,
	}, (*Options)(nil).withDefaults())
}
