package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/node"
)

// doctor runs peerlane doctor on a loopback host.
func doctor(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	listen := []string{"doctor", "--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"}
	code = run(append(listen, args...), stdio{strings.NewReader(""), &o, &e})
	return code, o.String(), e.String()
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	relay, err := node.New(t.Context(), &node.Options{Loopback: true, RelayService: &node.RelayService{}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, relay.Close()) })
	at := relay.Addrs()[0]
	for name, test := range map[string]func(t *testing.T){
		"relay": func(t *testing.T) {
			code, out, errs := doctor(t, "--relay", at)
			require.Zero(t, code, errs)
			require.Contains(t, out, "udp      IPv4: passes: QUIC to 1 of 1 helpers, ")
			require.Contains(t, out, "mapping  IPv4, UDP: no NAT: others see this machine at its own address\n")
			require.Contains(t, out, "relay    "+relay.ID().String()+": ")
			require.Contains(t, out, "summary  nothing is known about the internet: ")
			require.NotContains(t, out, "do       give --relay")
		},
		"helper": func(t *testing.T) {
			code, out, errs := doctor(t, "--json", "--helper", at)
			require.Zero(t, code, errs)
			var r node.NetworkReport
			require.NoError(t, json.Unmarshal([]byte(out), &r))
			require.Equal(t, relay.ID(), r.Helpers[0].ID)
			require.Equal(t, node.NoNAT, r.IPv4.TCP.Mapping)
			require.Empty(t, r.Relays)
			require.True(t, r.HolePunch)
		},
		"silent helper": func(t *testing.T) {
			code, out, errs := doctor(t, "--helper", "/ip4/127.0.0.1/tcp/1/p2p/"+relay.ID().String())
			require.Equal(t, exitUnreachable, code)
			require.Contains(t, out, "helper   "+relay.ID().String()+": does not answer: ")
			require.Contains(t, errs, "peerlane: no helper answers\nhint: check this machine's way to the internet")
		},
		"alone": func(t *testing.T) {
			code, out, _ := doctor(t)
			require.Zero(t, code)
			require.Contains(t, out, "summary  the network cannot be checked without a helper\ndo       give --relay or --helper")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // the check waits for routers
			test(t)
		})
	}
}

func TestDoctorNamesTheInvalidFlag(t *testing.T) {
	for _, flag := range []string{"--relay", "--helper"} {
		code, _, errs := doctor(t, flag, "x")
		require.Equal(t, exitUsage, code)
		require.Contains(t, errs, "peerlane: "+flag+`: "x" is neither`)
		code, _, errs = doctor(t, flag, "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")
		require.Equal(t, exitUsage, code)
		require.Contains(t, errs, flag+`: "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA" has no address`)
	}
}
