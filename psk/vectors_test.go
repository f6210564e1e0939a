package psk

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// vectors reads testdata/vectors.txt: lines of "name = hex", where # starts a comment and a line without = goes on with
// the value above.
func vectors(t testing.TB) map[string]string {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.txt")
	require.NoError(t, err)
	out := make(map[string]string)
	last := ""
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		value := line
		if name, rest, ok := strings.Cut(line, "="); ok {
			last, value = strings.TrimSpace(name), rest
		}
		out[last] += strings.Join(strings.Fields(value), "")
	}
	require.NoError(t, lines.Err())
	return out
}

// Row: N2
func TestDeriveVectors(t *testing.T) {
	v := vectors(t)
	for name, params := range map[string]*Params{"cheap": cheap, "default": nil} {
		key, err := Derive([]byte("correct horse battery staple"), params)
		require.NoError(t, err, name)
		require.Equal(t, v[name+".psk"], hex.EncodeToString(key.m().psk[:]), name)
		require.Equal(t, v[name+".id"], key.ID().String(), name)
	}
}

// Row: N1
func TestHandshakeVectors(t *testing.T) {
	v := vectors(t)
	key := testKey(t, "correct horse battery staple")
	from, to := testRing(t, key), testRing(t, key)
	from.random, to.random = bytes.NewReader(seq(0x20, 32)), bytes.NewReader(seq(0x40, 32))
	i, err := from.Initiate([]byte("prologue"))
	require.NoError(t, err)
	require.Equal(t, v["message1"], hex.EncodeToString(i.Message()))
	r, err := to.Respond([]byte("prologue"), i.KeyID(), i.Message())
	require.NoError(t, err)
	message2, s, err := r.Finish([]byte("payload"))
	require.NoError(t, err)
	require.Equal(t, v["message2"], hex.EncodeToString(message2))
	binding, keys := s.binding, s.keys.Load()
	require.Equal(t, v["binding"], hex.EncodeToString(binding[:]))
	require.Equal(t, v["initiator.key"], hex.EncodeToString(keys.receive[:]))
	require.Equal(t, v["responder.key"], hex.EncodeToString(keys.send[:]))
}

// Row: N2
func TestRecordVectors(t *testing.T) {
	v := vectors(t)
	keys, _ := fixedKeys()
	d := newDirection(keys.send, 2)
	var wire []byte
	for _, plain := range []string{"hello", "a", "after the rekey", ""} {
		wire = d.appendRecord(wire, []byte(plain))
	}
	require.Equal(t, v["records"], hex.EncodeToString(wire))
}
