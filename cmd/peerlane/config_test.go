package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/node"
)

const (
	relayOne = "/ip4/192.0.2.1/tcp/4001/p2p/" + somePeer
	relayTwo = "/ip4/192.0.2.2/tcp/4001/p2p/" + somePeer
)

// parse parses a command line with the configuration file config. If config is empty, there is no file.
func parse(t *testing.T, config string, args ...string) (c cli, path string, err error) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	t.Setenv("HOME", dir)
	t.Setenv("AppData", dir)
	path, err = configPath()
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	if config != "" {
		require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	}
	_, err = newParser(&c, stdio{strings.NewReader(""), new(bytes.Buffer), new(bytes.Buffer)}).Parse(args)
	return c, path, err
}

func TestFlagsOverrideTheEnvironmentAndTheFile(t *testing.T) {
	config := "relay = ['" + relayOne + "', '" + relayTwo + "']\ndht = 'public'\nkey = 'my.key'\n"
	c, path, err := parse(t, config, "serve")
	require.NoError(t, err)
	require.Equal(t, []string{relayOne, relayTwo}, c.Serve.Relay)
	require.Equal(t, dhtFlag{on: true}, c.Serve.DHT)
	require.Equal(t, filepath.Join(filepath.Dir(path), "my.key"), c.Serve.Key)

	c, _, err = parse(t, config, "receive", "--relay", relayTwo, "--key", "other.key", "--dht="+relayOne)
	require.NoError(t, err)
	require.Equal(t, []string{relayTwo}, c.Receive.Relay)
	require.Equal(t, "other.key", c.Receive.Key)
	require.Len(t, c.Receive.DHT.bootstrap, 1)

	t.Setenv(relayEnv, relayTwo+","+relayOne)
	c, _, err = parse(t, config, "send", "file")
	require.NoError(t, err)
	require.Equal(t, []string{relayTwo, relayOne}, c.Send.Relay)
	c, _, err = parse(t, "", "send", "file", "--relay", relayOne)
	require.NoError(t, err)
	require.Equal(t, []string{relayOne}, c.Send.Relay)
	require.Empty(t, c.Send.Key)
	require.Zero(t, c.Send.DHT)
}

func TestACallUsesTheDHTOfTheFile(t *testing.T) {
	c, _, err := parse(t, "dht = ['"+relayOne+"', '"+relayTwo+"']", "call", somePeer)
	require.NoError(t, err)
	require.True(t, c.Call.DHT.own)
	require.Len(t, c.Call.DHT.bootstrap, 2)
}

// Of the file, a relay uses only a DHT that it can serve.
func TestADHTOfTheFileThatDoesNotFitIsIgnored(t *testing.T) {
	for config, want := range map[string]bool{"dht = 'public'": false, "dht = 'none'": false, "dht = '" + relayOne + "'": true} {
		c, _, err := parse(t, config, "relay")
		require.NoError(t, err)
		require.Equal(t, want, c.Relay.DHT.on, config)
	}
	c, _, err := parse(t, "dht = 'public'", "call", somePeer, "--dht=none")
	require.NoError(t, err)
	require.False(t, c.Call.usesDHT())
	c, _, err = parse(t, "dht = 'none'", "call", somePeer)
	require.NoError(t, err)
	require.False(t, c.Call.usesDHT())
	c, _, err = parse(t, "relay = '"+relayOne+"'", "serve")
	require.NoError(t, err)
	require.Equal(t, []string{relayOne}, c.Serve.Relay, "one relay need not be in a list")
}

func TestLocalContradictsFlags(t *testing.T) {
	for _, args := range []string{"serve --local --dht", "serve --dht=" + relayOne + " --local", "call --local --dht " + somePeer} {
		_, _, err := parse(t, "", strings.Fields(args)...)
		require.ErrorContains(t, err, "give either --local or --dht", args)
	}
	for _, command := range []string{"serve", "receive", "send file"} {
		_, _, err := parse(t, "", strings.Fields(command+" --local --relay "+relayOne)...)
		require.ErrorContains(t, err, "give either --local or --relay", command)
	}
	t.Setenv(relayEnv, relayTwo)
	c, _, err := parse(t, "dht = 'public'\nrelay = '"+relayOne+"'", "serve", "--local")
	require.NoError(t, err, "what is not a flag is ignored")
	require.Empty(t, c.Serve.options().Relays)
	require.Len(t, c.Serve.options().Discovery, 1)
	_, _, err = parse(t, "", "call", somePeer, "--local", "--dht=none")
	require.NoError(t, err)
	c, _, err = parse(t, "", "doctor")
	require.NoError(t, err)
	require.Equal(t, []string{relayTwo}, c.Doctor.Relay)
}

func TestTheErrorNamesAnInvalidFile(t *testing.T) {
	for _, v := range []struct{ config, want string }{
		{"relay = ", "config.toml"},
		{"reley = []", `unknown key "reley", want relay, dht or key`},
		{"dht = 7", "want a string or a list of strings"},
		{"relay = 7", "want a string or a list of strings"},
		{"dht = ['somewhere']", `dht: want "public", "none" or addresses: invalid value: peer: "somewhere" is neither`},
		{"dht = ['public', 'none']", `dht: want "public", "none" or addresses: `},
		{"relay = 'somewhere'", `relay: invalid value: peer: "somewhere" is neither`},
		{"relay = ['" + somePeer + "']", "has no address"},
		{strings.Repeat("#", maxConfig+1), "not a configuration file"},
	} {
		_, path, err := parse(t, v.config, "serve")
		require.ErrorContains(t, err, v.want)
		require.ErrorContains(t, err, path)
		require.NotContains(t, err.Error(), "--", "no flag is at fault")
		_, _, err = parse(t, v.config, "demo")
		require.NoError(t, err, "a command without these flags does not read the file")
	}
	_, path, err := parse(t, "", "serve")
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(path, 0o700))
	_, err = readConfig()
	require.ErrorContains(t, err, "not a configuration file")
}

func TestTheDHTFlagHasAnOptionalValue(t *testing.T) {
	for args, want := range map[string]dhtFlag{
		"":           {},
		"--dht":      {on: true},
		"--dht=none": {on: true, own: true},
	} {
		c, _, err := parse(t, "", strings.Fields("call "+somePeer+" "+args)...)
		require.NoError(t, err)
		require.Equal(t, want, c.Call.DHT, args)
		require.Equal(t, somePeer, c.Call.Peer)
	}
	c, _, err := parse(t, "", "ping", "--dht="+relayOne, "--dht="+relayTwo, somePeer)
	require.NoError(t, err)
	require.Len(t, c.Ping.DHT.bootstrap, 2)
	require.EqualValues(t, dhtPrefix, c.Ping.DHT.options().Prefix)
	for _, wrong := range []string{"somewhere", somePeer} {
		_, _, err = parse(t, "", "ping", "--dht="+wrong, somePeer)
		require.ErrorContains(t, err, "--dht=ADDR")
	}
}

func TestFindFlags(t *testing.T) {
	with := func(f findFlags, relays ...string) *node.Options { return f.callee(&node.Options{Relays: relays}) }
	table, local := dhtFlag{on: true}, findFlags{DHT: dhtFlag{on: true}, Local: true}
	require.Len(t, with(findFlags{}).Discovery, 1, "the local network")
	require.Len(t, with(findFlags{DHT: table}).Discovery, 2)
	require.Equal(t, foundRelays, with(findFlags{DHT: table}).FindRelays)
	require.Zero(t, with(findFlags{DHT: table}, relayOne).FindRelays)
	require.True(t, with(findFlags{DHT: table}).HolePunch)
	require.False(t, with(findFlags{}).HolePunch)
	o := with(local, relayOne)
	require.Len(t, o.Discovery, 1)
	require.Empty(t, o.Relays)
	require.Zero(t, o.FindRelays)
	require.NotEmpty(t, o.Libp2p)
	require.True(t, (&findFlags{}).caller("").NoListen)
	require.False(t, (&findFlags{DHT: table}).caller("").NoListen, "hole punching needs listeners")
	require.True(t, local.caller("").NoListen)
	require.Zero(t, local.connectTimeout())
	require.Zero(t, (&findFlags{}).connectTimeout())
	require.Equal(t, dhtConnectTimeout, (&findFlags{DHT: table}).connectTimeout())
	none := findFlags{DHT: dhtFlag{on: true, own: true}}
	require.Len(t, with(none).Discovery, 1)
	require.Zero(t, with(none).FindRelays)
	require.True(t, none.caller("").NoListen)
	require.Zero(t, none.connectTimeout())
}
