package peerlane

import (
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

// overCircuits runs f in virtual time with sessions of n clients of one host to a server, over circuits with libp2p's own limits. The server answers
// each call with the given number of bytes.
func overCircuits(t *testing.T, n, answer int, clientCfg *ClientConfig, serverCfg *ServerConfig, f func(t *testing.T, all []*session.Session)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		hosts := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{
			Delay: 20 * time.Millisecond, Relayed: true, RelayLimit: relay.DefaultLimit(),
		})
		server := newServer(t, hosts.Bob, serverCfg)
		body := noise(answer)
		require.NoError(t, server.Start(callTag, func([]byte) ([]byte, error) { return body, nil }))
		var all []*session.Session
		for range n {
			s, err := newClient(t, hosts.Alice, clientCfg).Connect(testContext(t), hosts.Bob.ID(), callTag)
			require.NoError(t, err)
			require.True(t, PathOf(s).Limited)
			all = append(all, s)
		}
		f(t, all)
	})
}

// A server that sends most of what crosses a relay stays within the relay's budget: nothing is cut on its way, and the client leaves each circuit.
func TestWhatAServerSendsIsNotCutByALimitedRelay(t *testing.T) {
	const answer, calls = 40 << 10, 25
	clientCfg, serverCfg := lasting()
	log := newStepLog()
	serverCfg.OnState = log.note
	overCircuits(t, 1, answer, clientCfg, serverCfg, func(t *testing.T, all []*session.Session) {
		began := time.Now()
		for range calls {
			got, err := all[0].Call(t.Context(), "", nil)
			require.NoError(t, err)
			require.Equal(t, noise(answer), got)
		}
		v := all[0].Snapshot()
		t.Logf("%d bytes in %v: %d resumes", answer*calls, time.Since(began), v.Resumes)
		require.InDelta(t, answer*calls/(96<<10), v.Resumes, 1)
		require.Zero(t, closedHere(log), "the client leaves first")
	})
}

// Clients of one host share a circuit and count their own bytes alone. The server counts those of all, and closes the connection.
func TestAServerLeavesACircuitThatItsClientsDoNot(t *testing.T) {
	const answer, calls = 20 << 10, 20
	clientCfg, serverCfg := lasting()
	log := newStepLog()
	serverCfg.OnState = log.note
	overCircuits(t, 2, answer, clientCfg, serverCfg, func(t *testing.T, all []*session.Session) {
		var running sync.WaitGroup
		for _, s := range all {
			running.Go(func() {
				for range calls {
					got, err := s.Call(t.Context(), "", nil)
					assert.NoError(t, err)
					assert.Equal(t, noise(answer), got)
				}
			})
		}
		running.Wait()
		v := all[0].Snapshot()
		require.InDelta(t, 2*answer*calls/(96<<10), v.Resumes, 2)
		require.EqualValues(t, 2*v.Resumes, closedHere(log), "all circuits of both sessions")
	})
}

// A session that does not resume has all that the relay lets through.
func TestACircuitWithASessionThatDoesNotResumeIsNotLeft(t *testing.T) {
	const answer = 110 << 10
	clientCfg, serverCfg := lasting()
	clientCfg.ResumeWindow = -1
	overCircuits(t, 1, answer, clientCfg, serverCfg, func(t *testing.T, all []*session.Session) {
		began := time.Now()
		got, err := all[0].Call(t.Context(), "", nil)
		require.NoError(t, err)
		require.Equal(t, noise(answer), got)
		require.Less(t, time.Since(began), minServerSettleTime)
		time.Sleep(maxServerSettleTime)
		require.NoError(t, all[0].Err())
	})
}

// closedHere returns how many carriers this side has lost by closing their connection.
func closedHere(log *stepLog) int {
	changes, _ := log.all()
	n := 0
	for _, c := range changes {
		if c.State == session.StateDetached {
			n++
		}
	}
	return n - cutByOthers(log)
}
