package main

import (
	"bytes"
	"testing"
	"unicode"

	"github.com/BurntSushi/toml"
	"github.com/stretchr/testify/require"
)

// A configuration that is accepted has addresses alone, and is the same when it is written.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{
		"relay = ['" + relayOne + "', '" + relayTwo + "']\ndht = 'public'\nkey = 'my.key'\n", "dht = '" + relayOne + "'", "dht = ['none']",
		"relay = []", "relay = [1]", "relay = {}", "[relay]\na = 1", "key = 1", "other = 1", "key = \"\\u0000\"", "relay = '" + somePeer + "'",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseConfig(text)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		for _, one := range c.Relay {
			info, err := parseReachable(one)
			require.NoError(t, err)
			require.NotEmpty(t, info.Addrs)
		}
		var b bytes.Buffer
		require.NoError(t, toml.NewEncoder(&b).Encode(c))
		again, err := parseConfig(b.String())
		require.NoError(t, err, "%s", b.String())
		require.ElementsMatch(t, c.Relay, again.Relay)
		require.ElementsMatch(t, c.DHT, again.DHT)
		require.Equal(t, c.Key, again.Key)
	})
}

// A size on the command line is a positive number of bytes.
func FuzzSize(f *testing.F) {
	for _, s := range []string{"500k", "10MB/s", "1.5 GiB", "1e15", "NaN", "Inf", "-1", "0x1p4", "1e400g", "9999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var n size
		if err := n.UnmarshalText([]byte(text)); err != nil {
			require.ErrorIs(t, err, errSize)
			require.Zero(t, n)
			return
		}
		require.GreaterOrEqual(t, n, size(1), "%q", text)
		require.LessOrEqual(t, n, size(mostSize), "%q", text)
	})
}

// What a peer has chosen is shown on one line, and moves nothing on a terminal.
func FuzzSafe(f *testing.F) {
	for _, s := range []string{"name.txt", "\x1b[31mred", "a\nb", "\u202egpj.exe", "\xff\xfe", "\u200b", "ä ö"} {
		f.Add(s, 8)
	}
	f.Fuzz(func(t *testing.T, text string, n int) {
		shown := safe(text)
		for _, r := range shown {
			require.True(t, r == ' ' || unicode.IsPrint(r) && !unicode.Is(unicode.Cf, r), "%q of %q", r, text)
		}
		require.Equal(t, shown, safe(shown))
		n = 3 + max(0, n)%100
		require.LessOrEqual(t, len([]rune(short(shown, n))), n)
	})
}
