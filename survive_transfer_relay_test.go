package peerlane

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

// A file of many times what a circuit lets through, in pieces larger than that, arrives whichever side asked for it: the data lanes
// outlive the circuits.
func TestATransferSurvivesTheCutsOfALimitedRelay(t *testing.T) {
	const size = 1 << 20
	from := filepath.Join(t.TempDir(), "file")
	body := noise(size)
	require.NoError(t, os.WriteFile(from, body, 0o600))
	for _, way := range []string{"push", "fetch"} {
		for _, delay := range []time.Duration{time.Millisecond, 30 * time.Millisecond} { // one data lane, and several
			t.Run(way+" "+delay.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					hosts := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{
						Delay: delay, Relayed: true, RelayLimit: relay.DefaultLimit(),
					})
					to := t.TempDir()
					tree, err := source.Walk(t.Context(), []string{from}, nil)
					require.NoError(t, err)
					defer func() { require.NoError(t, tree.Close()) }()
					service, err := transfer.NewService(&transfer.ServiceConfig{
						Receive: func(context.Context, transfer.Incoming) (*transfer.Destination, error) {
							return &transfer.Destination{Dir: to}, nil
						},
					})
					require.NoError(t, err)
					server := newServer(t, hosts.Bob, &ServerConfig{AdmitAll: true})
					service.Handle(server)
					require.NoError(t, server.Listen(callTag))
					s, err := newClient(t, hosts.Alice, &ClientConfig{AdmitAll: true, Path: AllowRelay}).Connect(
						t.Context(), hosts.Bob.ID(), callTag)
					require.NoError(t, err)
					require.True(t, PathOf(s).Limited)

					dial := func(context.Context) (*session.Session, error) { return s, nil }
					o := transfer.Options{AllowLimited: true}
					began := time.Now()
					var run *transfer.Transfer
					if way == "push" {
						run = transfer.Push(t.Context(), dial, tree, &o)
					} else {
						share, err := service.Share(tree, nil)
						require.NoError(t, err)
						run = transfer.Fetch(t.Context(), []transfer.Dialer{dial}, share.Ref(), to, &transfer.ReceiveOptions{Options: o})
					}
					result, err := run.Wait()
					require.NoError(t, err)
					require.NoError(t, service.Close())
					got, err := os.ReadFile(filepath.Join(to, "file"))
					require.NoError(t, err)
					require.True(t, bytes.Equal(body, got))
					v := s.Snapshot()
					require.GreaterOrEqual(t, v.Resumes, uint64(size/relay.DefaultLimit().Data))
					require.Less(t, result.Progress.Crossed, int64(size+size/100), "nothing crosses twice but on the session's flow")
					require.Less(t, time.Since(began), time.Minute)
					t.Logf("%v: %d resumes, %d bytes sent again", time.Since(began), v.Resumes, v.Resent)
				})
			})
		}
	}
}
