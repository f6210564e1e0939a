package session

import (
	"context"
	"crypto/rand"
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
	"github.com/peerlane/peerlane/internal/zstd"
)

// The limits of a server under attack: the defaults, but for a sixteenth of the memory.
const (
	siegeSessions = 1000
	siegeCalls    = 1000
	siegeBytes    = 64 << 20
)

// A siege is an acceptor and hostile peers of one network, who do whatever they like.
type siege struct {
	*guests
	peers   int
	raiders []*raider
	over    chan struct{} // closed when they leave
}

// A raider is a session of a hostile peer, made of frames.
type raider struct {
	conn net.Conn
	next uint64
}

func newSiege(t *testing.T, peers int) *siege {
	quota := &Quota{MaxSessions: siegeSessions, MaxCalls: siegeCalls, MaxBytes: siegeBytes}
	k := &siege{guests: newGuests(t, Config{Quota: quota, Heartbeat: -1, pacer: zstd.NewPacer()}), peers: peers, over: make(chan struct{})}
	mux := k.acceptor.cfg.Mux
	mux.SetCall(echo)
	mux.SetLink("slow", func(m *Message) { <-m.Context().Done() })
	large := make([]byte, 64<<10)
	_, _ = rand.Read(large) // it cannot be compressed
	mux.SetLink("large", func(m *Message) { _ = m.Reply(large) })
	mux.SetLink("note", func(*Message) {})
	mux.SetStream("echo", func(st *Stream) { _, _ = io.Copy(st, st) })
	mux.SetStream("unread", func(st *Stream) { <-st.s.ended })
	return k
}

// name returns the peer that opens the ith session.
func (k *siege) name(i int) string { return fmt.Sprint("mallory ", i%k.peers) }

// carry returns a carrier of the ith session's peer, and what to call once its hello is answered.
func (k *siege) carry(i int) net.Conn {
	here, there := net.Pipe()
	go func() { _ = k.acceptor.Serve(from{there, "bad"}, k.name(i)) }()
	k.raiders = append(k.raiders, &raider{conn: here})
	return here
}

// raid opens the ith session, and reads what arrives on it if it reads. It returns nil if it is refused.
func (k *siege) raid(i int, caps frame.Caps, reads bool) *raider {
	conn := k.carry(i)
	limits := generous
	body := frame.AppendHello(nil, &frame.Hello{Kind: frame.KindHello, Version: frame.Version, Role: frame.RoleSession, Limits: &limits, Caps: caps})
	require.NoError(k.t, frame.WriteHello(conn, body))
	if readHello(k.t, conn).Kind != frame.KindAck {
		_ = conn.Close()
		return nil
	}
	r := k.raiders[len(k.raiders)-1]
	r.next = 1
	if reads {
		go func() { _, _ = io.Copy(io.Discard, conn) }()
	}
	return r
}

// say writes a frame under a new id, which it returns.
func (r *raider) say(typ frame.Type, flags frame.Flags, payload []byte) (id uint64) {
	id = r.next
	r.next += 2
	r.push(typ, flags, id, payload)
	return id
}

// push writes a frame, and does not care whether the session still takes it.
func (r *raider) push(typ frame.Type, flags frame.Flags, id uint64, payload []byte) {
	b := frame.AppendHeader(nil, frame.Header{Length: len(payload), Type: typ, Flags: flags, ID: id})
	_, _ = r.conn.Write(append(b, payload...))
}

func (r *raider) request(link string, total int, body []byte) (id uint64) {
	return r.say(frame.TypeRequest, 0, start(frame.TypeRequest, 0, frame.Start{Link: link, Total: total}, body))
}

// repeated opens as many sessions as there are peers, or more, and does the same on each so often that it is done total times.
func (k *siege) repeated(sessions, total int, reads bool, do func(r *raider)) {
	sessions = max(sessions, k.peers)
	for i := range sessions {
		r := k.raid(i, frame.CapZstd, reads)
		require.NotNil(k.t, r)
		for range total/sessions + 1 {
			do(r)
		}
	}
}

// leave ends what the attackers have open.
func (k *siege) leave() {
	close(k.over)
	for _, r := range k.raiders {
		_ = r.conn.Close()
	}
}

// An assault is a kind of attack.
type assault struct {
	takes  fair.Kind     // what it takes all of
	none   bool          // it takes nothing of the quota
	alone  int64         // the most that one peer takes; 0: all
	back   time.Duration // how long after its end something is still kept, beyond 5 s
	attack func(k *siege)
}

// holds returns what an assault by so many peers takes at least of a limit.
func (a assault) holds(limit int64, peers int) int64 {
	if a.alone > 0 && peers == 1 {
		return a.alone
	}
	return limit * 3 / 4
}

var assaults = map[string]assault{
	"all sessions": {takes: fair.Sessions, attack: func(k *siege) {
		for i := range 2 * siegeSessions {
			if r := k.raid(i, 0, true); r != nil {
				r.request("", 1, []byte("x"))
			}
		}
	}},
	"sessions that keep a stream open": {takes: fair.Sessions, attack: func(k *siege) {
		for i := range 2 * siegeSessions {
			if r := k.raid(i, 0, true); r != nil {
				r.say(frame.TypeStreamOpen, 0, []byte("echo"))
			}
		}
	}},
	"slow calls": {takes: fair.Calls, attack: func(k *siege) {
		k.repeated(1, siegeCalls, true, func(r *raider) { r.request("slow", 0, nil) })
	}},
	"requests that trickle": {takes: fair.Bytes, attack: func(k *siege) {
		part := make([]byte, 50<<10)
		ids := make(map[*raider][]uint64)
		k.repeated(1, siegeBytes/len(part), true, func(r *raider) { ids[r] = append(ids[r], r.request("", 1<<20, part)) })
		go func() {
			for {
				select {
				case <-k.over:
					return
				case <-time.After(time.Second):
				}
				for r, all := range ids {
					for _, id := range all {
						r.push(frame.TypeContinue, 0, id, []byte("x"))
					}
				}
			}
		}()
	}},
	"replies that nobody reads": {takes: fair.Bytes, attack: func(k *siege) {
		k.repeated(1, siegeBytes/(64<<10), false, func(r *raider) { r.request("large", 0, nil) })
	}},
	"streams that nobody reads": {takes: fair.Bytes, attack: func(k *siege) {
		k.repeated(2, siegeBytes/(256<<10), true, func(r *raider) {
			id := r.say(frame.TypeStreamOpen, 0, []byte("unread"))
			for range 8 {
				r.push(frame.TypeStreamData, 0, id, make([]byte, 32<<10))
			}
		})
	}},
	"one-way messages": {takes: fair.Bytes, attack: func(k *siege) {
		part := make([]byte, 60<<10)
		k.repeated(siegeBytes>>20, siegeBytes/len(part), true, func(r *raider) {
			r.say(frame.TypeMessage, 0, start(frame.TypeMessage, 0, frame.Start{Link: "slow", Total: len(part)}, part))
		})
	}},
	"hellos that do not end": {none: true, attack: func(k *siege) {
		for i := range max(100, 40*k.peers) {
			conn := k.carry(i)
			go func() { _, _ = conn.Write([]byte{0, 200, 1}) }()
		}
		synctest.Wait()
		require.Len(k.t, k.acceptor.conns, 16*k.peers)
	}},
	"bombs": {none: true, attack: func(k *siege) {
		const raw = 1 << 20
		bomb, ok := frame.Compress(make([]byte, raw))
		require.True(k.t, ok)
		k.repeated(1, 400, true, func(r *raider) {
			r.say(frame.TypeRequest, frame.FlagCompressed, start(frame.TypeRequest, frame.FlagCompressed,
				frame.Start{Link: "slow", Total: len(bomb), Raw: raw}, bomb))
		})
	}},
	"incomplete requests without a carrier": {takes: fair.Bytes, back: time.Minute, attack: func(k *siege) {
		part := make([]byte, 50<<10)
		sessions := max(10, k.peers)
		for i := range sessions {
			conn := k.carry(i)
			s, err := Dial(k.t.Context(), conn, "server", noRoute, &Config{Heartbeat: -1})
			require.NoError(k.t, err)
			for range siegeBytes/len(part)/sessions + 1 {
				s.mu.Lock()
				s.controlLocked(frame.Header{Type: frame.TypeRequest, ID: s.newIDLocked()},
					start(frame.TypeRequest, 0, frame.Start{Total: 1 << 20}, part))
				s.mu.Unlock()
				synctest.Wait()
			}
			_ = conn.Close()
			synctest.Wait()
			s.Abort()
		}
	}},
	// Who lost its connection may come back: its sessions keep their places, unless a peer that has less wants them.
	"sessions without a carrier": {takes: fair.Sessions, alone: 256, back: time.Minute, attack: func(k *siege) {
		for i := range 2 * siegeSessions {
			conn := k.carry(i)
			s, err := Dial(k.t.Context(), conn, "server", noRoute, &Config{Heartbeat: -1})
			if err != nil {
				require.ErrorIs(k.t, err, ErrUnavailable)
				continue
			}
			_, err = s.Call(k.t.Context(), "", []byte("x"))
			require.NoError(k.t, err)
			_ = conn.Close()
			synctest.Wait()
			s.Abort()
		}
	}},
}

func noRoute(context.Context, Want) (net.Conn, error) { return nil, errors.New("no route") }

// used returns how much of a kind is in use, and the limit.
func (k *siege) used(kind fair.Kind) (n, limit int64) {
	v := k.quota.Snapshot()
	switch kind {
	case fair.Sessions:
		return int64(v.Sessions), siegeSessions
	case fair.Calls:
		return int64(v.Calls), siegeCalls
	default:
		return v.Bytes, siegeBytes
	}
}

// holds requires that no limit is exceeded.
func (k *siege) holds() {
	k.t.Helper()
	synctest.Wait()
	for _, kind := range []fair.Kind{fair.Sessions, fair.Calls, fair.Bytes} {
		n, limit := k.used(kind)
		require.LessOrEqual(k.t, n, limit)
	}
}

// works requires that a peer can do a bit of everything at once, and returns how long that took.
func (k *siege) works(peer, subnet string) time.Duration {
	k.t.Helper()
	began := time.Now()
	s := k.called(peer, subnet)
	defer func() { _ = s.Close() }()
	got, err := s.Call(k.t.Context(), "", make([]byte, 100<<10))
	require.NoError(k.t, err)
	require.Len(k.t, got, 100<<10)
	require.NoError(k.t, s.Send(k.t.Context(), "note", make([]byte, 10<<10)))
	require.NoError(k.t, s.Flush(k.t.Context()))
	st, err := s.OpenStream(k.t.Context(), "echo", nil)
	require.NoError(k.t, err)
	_, err = st.Write(make([]byte, 20<<10))
	require.NoError(k.t, err)
	require.NoError(k.t, st.CloseWrite())
	back, err := io.ReadAll(st)
	require.NoError(k.t, err)
	require.Len(k.t, back, 20<<10)
	return time.Since(began)
}

// takesAll requires that a peer gets all that a lone peer may have.
func (k *siege) takesAll(peer, subnet string) {
	k.t.Helper()
	part := k.quota.Hold(peer, subnet)
	defer part.Leave()
	for kind, step := range map[fair.Kind]int64{fair.Sessions: 1, fair.Calls: 1, fair.Bytes: 64 << 10} {
		_, limit := k.used(kind)
		got := int64(0)
		for part.holder.Take(kind, step) == fair.Granted {
			got += step
		}
		require.GreaterOrEqual(k.t, got, limit*7/8-step, "kind %d", kind)
		part.holder.Give(kind, got)
	}
}

// Each attack, by one peer and by 200 of one network: honest newcomers from other networks are served at once, no limit is exceeded, and five
// seconds after the attackers have left a peer may have everything again.
func TestNoAttackKeepsOthersFromTheirShare(t *testing.T) {
	for name, row := range assaults {
		for _, peers := range []int{1, 200} {
			t.Run(fmt.Sprintf("%s by %d", name, peers), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					k := newSiege(t, peers)
					row.attack(k)
					k.holds()
					if had, limit := k.used(row.takes); !row.none {
						require.GreaterOrEqual(t, had, row.holds(limit, peers), "it is no attack")
					}
					for i := range 5 {
						require.LessOrEqual(t, k.works(fmt.Sprint("alice ", i), fmt.Sprint("good ", i)), reliefWait)
						k.holds()
					}
					k.leave()
					time.Sleep(5*time.Second + row.back + time.Millisecond)
					k.takesAll("bob", "better")
				})
			})
		}
	}
}
