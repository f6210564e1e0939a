package main

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPathsAreSaidWhenTheyChange(t *testing.T) {
	var out bytes.Buffer
	p := newPaths(&display{out: &out}, false)
	for _, line := range []string{"relayed", "relayed", "direct", "direct", "relayed"} {
		p.say("a", line)
	}
	require.Equal(t, "path     relayed\npath     direct\npath     relayed\n", out.String())
}

func TestThePathsOfManyPeersTakeLittleMemory(t *testing.T) {
	var out bytes.Buffer
	p := newPaths(&display{out: &out}, true)
	for i := range 100 * maxPeers {
		p.say(strconv.Itoa(i), "direct")
		require.LessOrEqual(t, len(p.last), 10*maxPeers)
	}
	require.Equal(t, 100*maxPeers, strings.Count(out.String(), "\n"))
}
