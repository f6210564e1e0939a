package session_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// Bytes of the peer alone move the clock, those of a ping too. Row: G11
// Claim: session.Snapshot.LastReceived
func TestLastReceivedIsMovedByThePeerAlone(t *testing.T) {
	for name, window := range map[string]time.Duration{"resumable": 0, "not resumable": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := session.Config{Heartbeat: -1, ResumeWindow: window, WriteTimeout: time.Hour}
				p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: cfg})
				p.ToBob.SetLink("log", func(*session.Message) {})
				time.Sleep(time.Second)
				synctest.Wait()
				before := p.Alice.LastReceived()
				require.Equal(t, before, p.Alice.Snapshot().LastReceived)

				p.Freeze()
				for range 20 {
					require.NoError(t, p.Alice.Send(t.Context(), "log", make([]byte, 10_000)))
					time.Sleep(time.Second)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_, _ = p.Alice.Ping(ctx)
				cancel()
				require.Equal(t, before, p.Alice.LastReceived(), "it has only sent")
				p.Thaw()

				time.Sleep(time.Minute)
				quiet := p.Alice.LastReceived()
				time.Sleep(time.Minute)
				require.Equal(t, quiet, p.Alice.LastReceived(), "nothing is sent on an idle session without a heartbeat")
				_, err := p.Bob.Ping(t.Context())
				require.NoError(t, err)
				require.WithinDuration(t, time.Now(), p.Alice.LastReceived(), time.Second, "a ping is received")
				require.True(t, p.Alice.LastReceived().After(quiet.Add(30*time.Second)))
			})
		})
	}
}

// Data of a dedicated stream does not pass through the session's carrier, and is received all the same.
func TestLastReceivedIsMovedByDedicatedStreams(t *testing.T) {
	for name, opts := range map[string]*session.StreamOptions{"dedicated": {Dedicated: true}, "resumable": {Dedicated: true, Resumable: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: session.Config{Heartbeat: -1}})
				p.ToBob.SetStream("late", func(st *session.Stream) {
					time.Sleep(time.Hour)
					_, _ = st.Write([]byte("late"))
				})
				st, err := p.Alice.OpenStream(t.Context(), "late", opts)
				require.NoError(t, err)
				_, err = st.Read(make([]byte, 4))
				require.NoError(t, err)
				require.WithinDuration(t, time.Now(), p.Alice.LastReceived(), time.Minute)
			})
		})
	}
}
