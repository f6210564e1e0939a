package session_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// What has come before the end is handled after it, with OnOpen as without.
func TestMessagesThatWaitAtTheEndAreHandledWithOnOpenToo(t *testing.T) {
	for _, hooks := range []*session.Hooks{nil, {OnOpen: func(*session.Session) error { return nil }}} {
		synctest.Test(t, func(t *testing.T) {
			var handled calls
			accept := &session.AcceptorConfig{}
			accept.Hooks = hooks
			p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Accept: accept})
			p.ToBob.SetLink("l", func(m *session.Message) {
				handled.add(string(m.Value))
				if string(m.Value) == "0" {
					time.Sleep(time.Second)
					require.NoError(t, m.Session().Close())
				}
			})
			for i := range 20 {
				require.NoError(t, p.Alice.Send(t.Context(), "l", []byte{byte('0' + i)}))
			}
			<-p.Bob.Done()
			time.Sleep(time.Minute)
			require.Len(t, handled.get(), 20)
		})
	}
}

// OnCron is called again after a call that found too many others waiting.
func TestOnCronGoesOnAfterItWasDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		crons := 0
		free := make(chan struct{})
		first := true
		accept := &session.AcceptorConfig{}
		accept.Hooks = &session.Hooks{CronPeriod: time.Minute,
			OnRefuse: func(session.Refusal) {
				if first {
					first = false
					<-free
				}
			},
			OnCron: func(*session.Session) { crons++ }}
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Accept: accept})
		for range 1100 {
			_, err := p.Alice.Call(t.Context(), "none", nil)
			require.Error(t, err)
		}
		require.NotZero(t, p.Bob.Snapshot().HooksDropped)
		time.Sleep(2 * time.Minute)
		close(free)
		time.Sleep(5 * time.Minute)
		require.InDelta(t, 5, crons, 1)
	})
}
