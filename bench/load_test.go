package main

import (
	"bytes"
	"compress/flate"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPayloadKindsDifferInCompressibility(t *testing.T) {
	const size = 64 << 10
	deflated := make(map[string]int)
	for _, kind := range []string{"random", "text", "zero"} {
		p, err := newPayload(kind, size)
		require.NoError(t, err)
		require.Len(t, p, size)
		var out bytes.Buffer
		w, err := flate.NewWriter(&out, flate.BestCompression)
		require.NoError(t, err)
		_, err = w.Write(p)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		deflated[kind] = out.Len()
	}
	require.GreaterOrEqual(t, deflated["random"], size)
	require.Less(t, deflated["text"], size/10)
	require.Less(t, deflated["zero"], deflated["text"])
}

func TestStampsTellCallersAndCallsApart(t *testing.T) {
	seen := make(map[string]bool)
	for id := range 64 {
		for seq := range uint64(64) {
			b := make([]byte, stampSize)
			stamp(b, id, seq)
			require.False(t, seen[string(b)], "caller %d, call %d", id, seq)
			seen[string(b)] = true
		}
	}
}
