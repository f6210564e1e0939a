package peerlane

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

func TestPathsAreSaidInWords(t *testing.T) {
	pid := decodePeer(t, somePeer)
	at := time.Date(2026, 1, 2, 15, 4, 5, 0, time.Local)
	for want, p := range map[string]Path{
		"no path":                 {},
		"direct, tcp":             {Transport: "tcp"},
		"direct, quic-v1, 0.4 ms": {Transport: "quic-v1", RTT: 413 * time.Microsecond},
		"direct, quic-v1, 12 ms":  {Transport: "quic-v1", RTT: 12345 * time.Microsecond},
		"relayed by " + somePeer + ", tcp, 1200 ms": {Transport: "tcp", Relayed: true, Relay: pid, RTT: 1200 * time.Millisecond},
		"relayed by " + somePeer + ", quic-v1, 80 ms, 128 KiB left": {
			Transport: "quic-v1", Relayed: true, Limited: true, Relay: pid, RTT: 80 * time.Millisecond,
			RelayData: 200 << 10, RelayLeft: 128<<10 + 5, RelayDuration: time.Minute, Expires: at,
		},
		"relayed by " + somePeer + ", tcp, until 15:04:05": {
			Transport: "tcp", Relayed: true, Limited: true, Relay: pid, RelayDuration: time.Minute, Expires: at,
		},
		"relayed by " + somePeer + ", tcp, with limits": {Transport: "tcp", Relayed: true, Limited: true, Relay: pid},
	} {
		require.Equal(t, want, p.String())
	}
}

// OnPath is called on both sides, in order, when the session is open, when it has lost its path and when it is on another one, and the path
// says what is left of a relay's limit.
// Claim: peerlane.ServerConfig.OnPath, peerlane.Path.RelayLeft
func TestOnPathFollowsASessionFromARelayToADirectPathAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 128 << 10
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{
			Delay: 10 * time.Millisecond, Relayed: true, RelayLimit: &relay.RelayLimit{Data: limit, Duration: time.Hour},
		})
		clientCfg, serverCfg := lasting()
		var mu sync.Mutex
		heard, ofStates := make(map[string][]Path), make(map[string][]Path) // by side
		hook := func(side string) func(*session.Session, Path) {
			return func(_ *session.Session, p Path) {
				mu.Lock()
				defer mu.Unlock()
				heard[side] = append(heard[side], p)
			}
		}
		states := func(side string) func(*session.Session, session.StateChange) {
			return func(s *session.Session, _ session.StateChange) {
				mu.Lock()
				defer mu.Unlock()
				assert.LessOrEqual(t, len(heard[side]), len(ofStates[side]), "OnState comes first")
				ofStates[side] = append(ofStates[side], PathOf(s))
			}
		}
		clientCfg.OnPath, clientCfg.OnState = hook("client"), states("client")
		serverCfg.OnPath, serverCfg.OnState = hook("server"), states("server")
		s, c, server := relayedSession(t, h.Alice, h.Bob, clientCfg, serverCfg)
		synctest.Wait()
		require.InDelta(t, limit, PathOf(s).RelayLeft, 1000)
		_, err := s.Call(t.Context(), "", make([]byte, 32<<10))
		require.NoError(t, err)
		require.InDelta(t, limit-32<<10, PathOf(s).RelayLeft, 2000)
		peerlanetest.OpenDirect(t, h.Alice, h.Bob)
		time.Sleep(5 * time.Second)
		require.False(t, PathOf(s).Relayed)
		require.Zero(t, PathOf(s).RelayLeft)
		require.NoError(t, s.Reconnect(t.Context()))
		paths := Paths(h.Alice, h.Bob.ID())
		require.Len(t, paths, 2)
		require.Equal(t, []bool{false, true}, []bool{paths[0].Relayed, paths[1].Relayed})
		peerlanetest.CloseDirect(t, h.Alice, h.Bob)
		time.Sleep(5 * time.Second)
		require.NoError(t, c.Close())
		require.NoError(t, server.Stop())
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		for side, all := range heard {
			require.Len(t, all, 4, side)
			require.True(t, all[0].Relayed && !all[1].Relayed && all[2] == (Path{}) && all[3].Relayed, "%s: %v", side, all)
			require.True(t, slices.ContainsFunc(ofStates[side], func(p Path) bool { return !p.Relayed }))
		}
		require.Len(t, heard, 2)
	})
}
