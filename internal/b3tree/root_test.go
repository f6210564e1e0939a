package b3tree

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"lukechampine.com/blake3"
)

// officialHashes are from test_vectors.json of BLAKE3-team/BLAKE3.
var officialHashes = []struct {
	n    int
	hash string
}{
	{0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"},
	{1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"},
	{1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11"},
	{1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"},
	{1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"},
	{2049, "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030"},
	{3073, "7124b49501012f81cc7f11ca069ec9226cecb8a2c850cfe644e327d22d3e1cd3"},
	{4096, "015094013f57a5277b59d8475c0501042c0b642e531b0a1c8f58d2163229e969"},
	{8193, "bab6c09cb8ce8cf459261398d2e7aef35700bf488116ceb94a36d0f5f1b7bc3b"},
	{16384, "f875d6646de28985646f34ee13be9a576fd515f76b5b0a26bb324735041ddde4"},
	{31744, "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47"},
	{102400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"},
}

func TestSumIsBlake3(t *testing.T) {
	for _, test := range officialHashes {
		require.Equal(t, test.hash, Sum(official(test.n)).String(), "%d bytes", test.n)
	}
	for _, n := range boundaries() {
		data := random(n)
		require.Equal(t, Root(blake3.Sum256(data)), Sum(data), "%d bytes", n)
	}
}

func TestRootHasOneText(t *testing.T) {
	root := Sum(nil)
	text := root.String()
	got, err := ParseRoot(text)
	require.NoError(t, err)
	require.Equal(t, root, got)
	require.Equal(t, text, CV(root).String())
	for _, wrong := range []string{
		"", text[1:], text + "0", strings.ToUpper(text), "g" + text[1:], " " + text[1:], text[:62] + "0x", strings.Repeat("é", 32),
		strings.Repeat("a", 1<<20),
	} {
		got, err := ParseRoot(wrong)
		require.ErrorIs(t, err, ErrRoot, "%.80q", wrong)
		require.Zero(t, got, "%.80q", wrong)
		require.Less(t, len(err.Error()), 300)
	}
}

func FuzzParseRoot(f *testing.F) {
	f.Add(Sum(nil).String())
	f.Add(strings.ToUpper(Sum(nil).String()))
	f.Fuzz(func(t *testing.T, text string) {
		root, err := ParseRoot(text)
		if err == nil {
			require.Equal(t, text, root.String())
			return
		}
		require.ErrorIs(t, err, ErrRoot)
	})
}
