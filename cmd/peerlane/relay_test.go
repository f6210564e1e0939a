package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/transfer/ticket"
)

// waitFor waits until out has a line that a pattern matches, and returns what its group does.
func waitFor(t *testing.T, out *lockedBuffer, pattern string) string {
	t.Helper()
	var found []string
	require.Eventually(t, func() bool {
		found = regexp.MustCompile(pattern).FindStringSubmatch(out.String())
		return found != nil
	}, 20*time.Second, 10*time.Millisecond, "%s", pattern)
	return found[1]
}

func TestATicketLeadsThroughARelay(t *testing.T) {
	for _, test := range []struct {
		name string
		kind testnet.Transport
		size int
	}{{"unlimited", testnet.Relay, 1 << 20}, {"limited", testnet.LimitedRelay, 10 << 10}} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("XDG_CONFIG_HOME", t.TempDir())
			relay := testnet.NewRelay(t, test.kind).Host()
			at := relay.Addrs()[0].String() + "/p2p/" + relay.ID().String()
			from, to := filepath.Join(t.TempDir(), "file"), t.TempDir()
			require.NoError(t, os.WriteFile(from, make([]byte, test.size), 0o600))
			out, sent := new(lockedBuffer), make(chan error, 1)
			send := sendCmd{treeFlags: treeFlags{Path: []string{from}}, hostFlags: hostFlags{Relay: []string{at}, Listen: []string{"/ip4/127.0.0.1/tcp/0"}}}
			go func() { sent <- send.Run(t.Context(), stdio{strings.NewReader(""), out, out}) }() // ends with the transfer
			text := waitFor(t, out, "(?m)^ticket   (.*)\n(?s:.*)^ready$")
			k, err := ticket.Parse(text)
			require.NoError(t, err)
			require.Len(t, k.Sources[0].Addrs, 1)
			require.Contains(t, k.Sources[0].Addrs[0].String(), "/p2p-circuit")
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			get := getCmd{Ticket: text, Dir: to, dialFlags: dialFlags{pathFlags: pathFlags{AllowRelay: true}}}
			require.NoError(t, get.Run(ctx, stdio{strings.NewReader(""), out, out}), "%s", out)
			require.NoError(t, <-sent)
			data, err := os.ReadFile(filepath.Join(to, "file"))
			require.NoError(t, err)
			require.Len(t, data, test.size)
		})
	}
}

// serve and receive wait for the relay's reservation, print the relayed address, and suggest it to the other side.
func TestServeAndReceivePrintTheRelayedAddress(t *testing.T) {
	relay, hello := testnet.NewRelay(t, testnet.Relay), "hello"
	at := relay.Host().Addrs()[0].String() + "/p2p/" + relay.Host().ID().String()
	here := []string{"/ip4/127.0.0.1/tcp/0"}
	serve := serveCmd{Relay: []string{at}, Listen: here, Tag: defaultTag, Peers: 10, Drain: time.Second}
	receive := receiveCmd{Dir: t.TempDir(), hostFlags: hostFlags{Relay: []string{at}, Listen: here}, Allow: []string{relay.Host().ID().String()}}
	for suggested, run := range map[string]func(context.Context, stdio) error{"call it  peerlane call": serve.Run, "push it  peerlane push": receive.Run} {
		ctx, cancel := context.WithCancel(t.Context())
		out, ended := new(lockedBuffer), make(chan error, 1)
		go func() { ended <- run(ctx, stdio{strings.NewReader(""), out, out}) }() // ends with ctx
		text := waitFor(t, out, "(?s)^(.*)\nready\n")
		peer := regexp.MustCompile("(?m)^peer     (.*)$").FindStringSubmatch(text)[1]
		require.Contains(t, text, "\naddress  "+at+"/p2p-circuit/p2p/"+peer+"\n")
		require.Contains(t, text, "\n"+suggested+" "+at+"/p2p-circuit/p2p/"+peer+" ")
		if suggested == "call it  peerlane call" {
			answer := new(lockedBuffer)
			call := callCmd{peerFlags: peerFlags{Peer: at + "/p2p-circuit/p2p/" + peer, Tag: defaultTag, Timeout: 20 * time.Second}, Data: &hello}
			require.NoError(t, call.Run(t.Context(), stdio{strings.NewReader(""), answer, out}))
			require.Equal(t, "hello", answer.String())
		}
		cancel()
		require.NoError(t, <-ended)
	}
}

func TestARelayThatIsNoneIsSaid(t *testing.T) {
	nobody := testnet.Host(t, testnet.TCPTLS)
	at := nobody.Addrs()[0].String() + "/p2p/" + nobody.ID().String()
	here := []string{"/ip4/127.0.0.1/tcp/0"}
	send := sendCmd{treeFlags: treeFlags{Path: []string{t.TempDir()}}, hostFlags: hostFlags{Relay: []string{at}, Listen: here}}
	serve := serveCmd{Relay: []string{at}, Listen: here, Tag: defaultTag, Peers: 10}
	for _, run := range []func(context.Context, stdio) error{send.Run, serve.Run} {
		err := run(t.Context(), stdio{strings.NewReader(""), io.Discard, io.Discard})
		require.ErrorIs(t, err, errNoRelay)
		code, hint := explain(err)
		require.Equal(t, exitUnreachable, code)
		require.NotEmpty(t, hint)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, send.Run(ctx, stdio{strings.NewReader(""), io.Discard, io.Discard}), context.Canceled)
}

// What waits for a relay that is not there says who it is and what it waits for, and ends with the reason when the time for it is over.
func TestARelayThatIsNotThereIsSaid(t *testing.T) {
	defer func(d time.Duration) { relayWait = d }(relayWait)
	relayWait = 2 * time.Second
	gone := testnet.Host(t, testnet.TCPTLS)
	at := gone.Addrs()[0].String() + "/p2p/" + gone.ID().String()
	require.NoError(t, gone.Close())
	serve := serveCmd{Relay: []string{at}, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Tag: defaultTag, Peers: 10}
	out, ended := new(lockedBuffer), make(chan error, 1)
	go func() { ended <- serve.Run(t.Context(), stdio{strings.NewReader(""), out, out}) }() // ends when the relay has had its time
	require.Equal(t, gone.ID().String(), waitFor(t, out, "(?s)^peer     .*\nrelay    waiting for ([^\n]*)\n$"))
	err := <-ended
	require.ErrorIs(t, err, errNoRelay)
	require.ErrorContains(t, err, "connection refused")
	code, hint := explain(err)
	require.Equal(t, exitUnreachable, code)
	require.Contains(t, hint, "--relay")
}
