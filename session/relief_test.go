package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
)

// Guests are peers of one acceptor, each with as many sessions as it gets.
type guests struct {
	t        *testing.T
	acceptor *Acceptor
	quota    *Quota
}

func newGuests(t *testing.T, cfg Config) *guests {
	t.Helper()
	c := &guests{t: t, quota: cfg.Quota}
	if cfg.Mux == nil {
		cfg.Mux = NewMux()
		cfg.Mux.SetCall(echo)
	}
	var err error
	c.acceptor, err = NewAcceptor(&AcceptorConfig{Config: cfg})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.acceptor.Shutdown(within(t, time.Second)) })
	return c
}

// from is a conn from a subnet.
type from struct {
	net.Conn
	subnet string
}

func (f from) Subnet() string { return f.subnet }

// dial opens a session of a peer in a subnet.
func (c *guests) dial(peer, subnet string) (*Session, error) {
	c.t.Helper()
	here, there := net.Pipe()
	go func() { _ = c.acceptor.Serve(from{there, subnet}, peer) }()
	return Dial(c.t.Context(), here, "server", nil, &Config{Heartbeat: -1})
}

// dialResumable opens a session that outlives its carriers.
func (c *guests) dialResumable(peer, subnet string) *Session {
	c.t.Helper()
	open := func(context.Context, Want) (net.Conn, error) {
		here, there := net.Pipe()
		go func() { _ = c.acceptor.Serve(from{there, subnet}, peer) }()
		return here, nil
	}
	first, _ := open(nil, Want{})
	s, err := Dial(c.t.Context(), first, "server", open, &Config{Heartbeat: -1})
	require.NoError(c.t, err)
	return s
}

// flood opens as many sessions of a peer as there are, up to most, and uses each if use is set.
func (c *guests) flood(peer, subnet string, most int, use bool) (all []*Session) {
	c.t.Helper()
	for range most {
		s, err := c.dial(peer, subnet)
		if err != nil {
			require.ErrorIs(c.t, err, ErrUnavailable)
			require.NotZero(c.t, asError(c.t, err, NotSent).RetryAfter)
			break
		}
		if use {
			_, err := s.Call(c.t.Context(), "", []byte("x"))
			require.NoError(c.t, err)
		}
		all = append(all, s)
	}
	synctest.Wait()
	return all
}

// called requires that a peer opens a session, and that a call on it is answered.
func (c *guests) called(peer, subnet string) *Session {
	c.t.Helper()
	s, err := c.dial(peer, subnet)
	require.NoError(c.t, err, peer)
	_, err = s.Call(c.t.Context(), "", []byte("x"))
	require.NoError(c.t, err, peer)
	return s
}

// alive returns how many of the sessions have not ended.
func alive(all []*Session) (n int) {
	for _, s := range all {
		if s.Err() == nil {
			n++
		}
	}
	return n
}

// A peer that opens as many sessions as it can keeps no other from having some, whether it uses them or not. Nor do many peers of one network,
// or of many.
func TestNobodyTakesAllSessions(t *testing.T) {
	for _, use := range []bool{false, true} {
		for _, many := range []struct{ peers, subnets int }{{1, 1}, {100, 1}, {100, 50}} {
			t.Run(fmt.Sprintf("%d peers of %d networks, used: %v", many.peers, many.subnets, use), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					c := newGuests(t, Config{Quota: &Quota{MaxSessions: 100}, Heartbeat: -1})
					var theirs []*Session
					for i := range many.peers {
						theirs = append(theirs, c.flood(fmt.Sprint("mallory ", i), fmt.Sprint("bad ", i%many.subnets), 100, use)...)
					}
					require.Greater(t, len(theirs), 50)
					began := time.Now()
					for i := range 40 {
						c.called(fmt.Sprint("alice ", i), fmt.Sprint("good ", i))
					}
					require.Less(t, time.Since(began), 5*time.Second)
					require.LessOrEqual(t, c.quota.Snapshot().Sessions, 100)
				})
			})
		}
	}
}

// A session with work in flight is not ended for others, and a detached one before an idle one.
func TestRoomIsMadeOfWhatIsLeastUsed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		mux, release := NewMux(), make(chan struct{})
		mux.SetCall(func(m *Message) ([]byte, error) {
			if string(m.Value) == "wait" {
				<-release
			}
			return nil, nil
		})
		c := newGuests(t, Config{Quota: &Quota{MaxSessions: 32}, Heartbeat: -1, Mux: mux})
		busy := c.flood("mallory", "bad", 20, true)
		calls := make(chan error, len(busy))
		for _, s := range busy {
			go func() {
				_, err := s.Call(context.WithoutCancel(t.Context()), "", []byte("wait"))
				calls <- err
			}()
		}
		idle := c.flood("mallory", "bad", 20, true)
		require.Len(t, idle, 8, "28 of 32 for a lone peer")
		alice := c.called("alice", "good")
		bob := c.called("bob", "better")
		for range 6 {
			c.called("alice", "good")
		}
		require.Len(t, busy, alive(busy))
		require.Less(t, alive(idle), 8)
		require.NoError(t, alice.Err())
		require.NoError(t, bob.Err())
		close(release)
		for range busy {
			require.NoError(t, <-calls)
		}
	})
}

// A peer with as many sessions as the others does not get their places.
func TestNobodyIsEndedForAnEqual(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newGuests(t, Config{Quota: &Quota{MaxSessions: 32}, Heartbeat: -1})
		var first []*Session
		for i := range 32 {
			first = append(first, c.flood(fmt.Sprint(i), fmt.Sprint(i), 1, true)...)
		}
		require.GreaterOrEqual(t, len(first), 28)
		_ = c.flood("late", "late", 4, true)
		require.Equal(t, len(first), alive(first))
	})
}

// full fills the places with sessions that are in use, until release is called, and returns these.
func (c *guests) full(release <-chan struct{}) (all []*Session) {
	c.t.Helper()
	c.acceptor.cfg.Mux.SetCall(func(m *Message) ([]byte, error) {
		if string(m.Value) == "wait" {
			<-release
		}
		return nil, nil
	})
	all = c.flood("mallory", "bad", c.quota.MaxSessions, true)
	for i := range c.quota.MaxSessions {
		all = append(all, c.flood(fmt.Sprint(i), fmt.Sprint(i), 1, true)...)
		if c.quota.Snapshot().Sessions == c.quota.MaxSessions {
			break
		}
	}
	for _, s := range all {
		go func() { _, _ = s.Call(context.WithoutCancel(c.t.Context()), "", []byte("wait")) }()
	}
	synctest.Wait()
	return all
}

// However many sessions are ended at a time, no peer is left with fewer than the one that wants a place.
func TestNobodyIsEndedBelowTheNewcomer(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newGuests(t, Config{Quota: &Quota{MaxSessions: 256}, Heartbeat: -1})
		release := make(chan struct{})
		defer close(release)
		bobs := c.flood("bob", "good", 3, true)
		all := c.full(release)
		require.Equal(t, 256, len(all)+len(bobs))
		_, err := c.dial("alice", "better")
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, 1, alive(bobs), "as many as alice")
		require.Equal(t, len(all), alive(all))
	})
}

// A session that was just opened is not ended for an equal before its first call has arrived.
func TestANewSessionIsNotEndedForAnEqual(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newGuests(t, Config{Quota: &Quota{MaxSessions: 64}, Heartbeat: -1})
		release := make(chan struct{})
		defer close(release)
		first := c.flood("alice", "good", 1, false)
		_ = c.full(release)
		time.Sleep(2 * reliefYoung)
		bob := c.flood("bob", "better", 1, false)
		require.Len(t, bob, 1, "in the place of alice, who has not used it")
		require.Zero(t, alive(first))
		require.Empty(t, c.flood("carol", "best", 1, false))
		_, err := bob[0].Call(t.Context(), "", []byte("x"))
		require.NoError(t, err)
	})
}

// A session that is used again after it was chosen is not ended, be it detached or not.
func TestASessionInUseAgainIsNotEnded(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("detached: %v", lost), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				c := newGuests(t, Config{Quota: &Quota{MaxSessions: 32}, ResumeWindow: time.Hour})
				release := make(chan struct{})
				c.acceptor.cfg.Mux.SetCall(func(*Message) ([]byte, error) { <-release; return nil, nil })
				here, there := net.Pipe()
				go func() { _ = c.acceptor.Serve(there, "alice") }()
				noRoute := func(context.Context, Want) (net.Conn, error) { return nil, errors.New("no route") }
				s, err := Dial(t.Context(), here, "server", noRoute, &Config{ResumeWindow: time.Hour})
				require.NoError(t, err)
				defer s.Abort()
				called := make(chan error, 1)
				go func() {
					_, err := s.Call(context.WithoutCancel(t.Context()), "", []byte("x"))
					called <- err
				}()
				synctest.Wait()
				accepted := c.acceptor.Sessions()[0]
				if lost {
					_ = here.Close()
					synctest.Wait()
					require.Equal(t, StateDetached, accepted.Snapshot().State)
				}
				accepted.makeRoom()
				time.Sleep(reliefWait)
				require.NoError(t, accepted.Err())
				close(release)
				if lost {
					s.Abort()
				}
				require.Equal(t, lost, <-called != nil)
			})
		})
	}
}

// A peer that waits for a place gets one that was taken for a session whose hello then failed.
func TestAFailedHelloGivesItsPlaceBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newGuests(t, Config{Quota: &Quota{MaxSessions: 32}})
		freed := c.quota.nextFreed()
		here, there := net.Pipe()
		served := make(chan error, 1)
		go func() { served <- c.acceptor.Serve(there, "mallory") }()
		limits := generous
		body := frame.AppendHello(nil, &frame.Hello{Kind: frame.KindHello, Version: frame.Version, Role: frame.RoleSession, Limits: &limits})
		require.NoError(t, frame.WriteHello(here, body))
		synctest.Wait()
		require.Equal(t, 1, c.quota.Snapshot().Sessions)
		require.NoError(t, here.Close()) // it does not read the answer
		require.Error(t, <-served)
		require.Zero(t, c.quota.Snapshot().Sessions)
		require.True(t, waitUntil(freed, time.Now().Add(time.Second)))
	})
}

// Of the sessions that were never used, those of the network that has most go first, not the oldest.
func TestOfUnusedSessionsThoseOfTheGreediestGoFirst(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newGuests(t, Config{Quota: &Quota{MaxSessions: 128}, Heartbeat: -1})
		release := make(chan struct{})
		defer close(release)
		bob := c.flood("bob", "good", 1, false)
		time.Sleep(time.Second)
		crowd := c.flood("crowd", "crowd", 4, false)
		_ = c.full(release)
		time.Sleep(2 * reliefYoung)
		require.Len(t, c.flood("alice", "better", 1, true), 1)
		require.Equal(t, 1, alive(bob))
		require.Equal(t, 2, alive(crowd))
	})
}

// A lodger is a tenant that counts how often somebody looks at it.
type lodger struct {
	part   *QuotaPart
	as     use
	looked *int
}

func (l *lodger) holder() *fair.Holder { return l.part.holder }
func (l *lodger) makeRoom() bool       { return false }
func (l *lodger) abandon()             {}

func (l *lodger) isAbandoned() (time.Time, bool) { return time.Time{}, false }
func (l *lodger) use() (use, time.Time) {
	*l.looked++
	return l.as, time.Time{}
}

// An absentee is a session without a carrier that holds memory.
type absentee struct {
	lodger
	holds int
	gone  *int
}

func (a *absentee) isAbandoned() (time.Time, bool) { return time.Time{}, true }

func (a *absentee) abandon() {
	a.part.Release(0, a.holds)
	*a.gone++
}

// No more sessions without a carrier end than make a 16th of the memory free.
func TestMemoryForOthersEndsFewSessions(t *testing.T) {
	const limit, each = 1 << 20, 20 << 10
	inBubble(t, func(t *testing.T) {
		q, gone := &Quota{MaxBytes: limit}, 0
		mallory := q.Hold("mallory", "bad")
		for range limit * 7 / 8 / each {
			require.NoError(t, mallory.Take(0, each))
			q.register(&absentee{lodger{part: mallory}, each, &gone})
		}
		q.relieveBytes(q.Hold("alice", "good").holder)
		require.Equal(t, (limit/abandonedPart+each-1)/each, gone)
	})
}

// Strangers who ask for a place where there is none, one after the other, do not make the quota look at all sessions each time, from however
// many networks they come, and whether others of these have sessions or not.
func TestSearchesInVainAreRare(t *testing.T) {
	const sessions, asks, perSecond = 100, 1000, int(time.Second / retryHint)
	for _, as := range []use{busy, idle} {
		for _, networks := range []int{asks, 50} {
			t.Run(fmt.Sprintf("%d networks, %d", networks, as), func(t *testing.T) {
				inBubble(t, func(*testing.T) {
					q, looked := &Quota{MaxSessions: sessions}, 0
					for i := range sessions {
						part := q.Hold(fmt.Sprint(i), fmt.Sprint("net ", i%50))
						require.Equal(t, fair.Granted, part.holder.Take(fair.Sessions, 1))
						q.register(&lodger{part, as, &looked})
					}
					if as == idle && networks == asks {
						return // they find some
					}
					for i := range asks {
						stranger := q.Hold(fmt.Sprint("stranger ", i), fmt.Sprint("net ", i%networks))
						require.False(t, q.relieve(stranger.holder))
						stranger.Leave()
						time.Sleep(time.Second / asks)
					}
					require.Greater(t, looked, sessions, "it looks again")
					require.LessOrEqual(t, looked, (perSecond+1)*2*sessions)
				})
			})
		}
	}
}

// A search that was in vain for one peer is not repeated for another that has as much, and is for one that has less.
func TestASearchInVainCountsForItsEquals(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		tree := fair.New(100, 0, 0)
		a, b, c := tree.Hold("a", "net"), tree.Hold("b", "net"), tree.Hold("c", "other")
		require.Equal(t, fair.Granted, a.Take(fair.Sessions, 2))
		require.Equal(t, fair.Granted, b.Take(fair.Sessions, 1))
		var v vain
		others, own := v.leaves(a)
		require.True(t, others && own, "nothing is known")
		v.add(a, true, 3, 2)
		others, own = v.leaves(a)
		require.False(t, others)
		require.False(t, own)
		others, own = v.leaves(b)
		require.False(t, others, "its network has as much")
		require.True(t, own, "it has less")
		others, own = v.leaves(c)
		require.True(t, others, "its network has less")
		require.False(t, own, "it is alone there")
		time.Sleep(retryHint)
		others, own = v.leaves(a)
		require.True(t, others && own)
		for i := range 2 * maxVain {
			v.add(tree.Hold(fmt.Sprint(i), fmt.Sprint("net ", i)), false, 0, 0)
		}
		require.LessOrEqual(t, len(v.own), maxVain)
	})
}

// Sessions with a stream on which nothing moves make room at the bound, those of the networks that have most. Who has little keeps them, and
// so do those whose data this side has not read, or whose calls run.
func TestStillStreamsMakeRoom(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newGuests(t, Config{Quota: &Quota{MaxSessions: 128}})
		mux, release := c.acceptor.cfg.Mux, make(chan struct{})
		mux.SetStream("still", func(st *Stream) { _, _ = io.Copy(io.Discard, st) })
		mux.SetStream("unread", func(st *Stream) { <-st.s.ended })
		mux.SetLink("slow", func(*Message) { <-release })
		open := func(s *Session, name string, data int) *Session {
			st, err := s.OpenStream(t.Context(), name, nil)
			require.NoError(t, err)
			_, err = st.Write(make([]byte, data))
			require.NoError(t, err)
			return s
		}
		var theirs, few, works []*Session
		for _, s := range c.flood("unread", "bad 0", 1, true) {
			works = append(works, open(s, "unread", 100))
		}
		for _, s := range c.flood("slow", "bad 1", 1, true) {
			works = append(works, open(s, "still", 100))
			go func() { _, _ = s.Call(context.WithoutCancel(t.Context()), "slow", nil) }()
		}
		for i := range 110 {
			for _, s := range c.flood(fmt.Sprint("mallory ", i), fmt.Sprint("bad ", i%4), 1, true) {
				theirs = append(theirs, open(s, "still", 100))
			}
		}
		for i := range 16 {
			for _, s := range c.flood(fmt.Sprint("few ", i), fmt.Sprint("few ", i), 1, true) {
				few = append(few, open(s, "still", 100))
			}
		}
		require.Equal(t, 128, c.quota.Snapshot().Sessions)
		time.Sleep(reliefStill - 5*time.Second)
		require.Empty(t, c.flood("alice", "good", 1, true), "all are in use")
		time.Sleep(10 * time.Second)
		served := 0
		for i := range 128 {
			served += len(c.flood(fmt.Sprint("alice ", i), fmt.Sprint("good ", i), 1, true))
		}
		require.Greater(t, served, 90)
		require.Less(t, alive(theirs), 20)
		require.Len(t, few, alive(few))
		require.Len(t, works, alive(works))
		close(release)
	})
}

// A peer that was served is known when it comes again, although its session ended before its handler did.
func TestAPeerIsKnownWhoseSessionEndedBeforeItsHandler(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newGuests(t, Config{Quota: &Quota{MaxSessions: 32}})
		release := make(chan struct{})
		c.acceptor.cfg.Mux.SetCall(func(*Message) ([]byte, error) { <-release; return nil, nil })
		s, err := c.dial("alice", "good")
		require.NoError(t, err)
		go func() { _, _ = s.Call(context.WithoutCancel(t.Context()), "", nil) }()
		synctest.Wait()
		s.Abort()
		synctest.Wait()
		close(release)
		synctest.Wait()
		again := c.quota.Hold("alice", "good")
		defer again.Leave()
		require.True(t, again.holder.IsKnown())
	})
}
