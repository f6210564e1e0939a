package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// sentFile is the bytes of one file on the lane.
func sentFile(name, content string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	b = binary.BigEndian.AppendUint64(b, uint64(len(content)))
	return append(append(b, name...), content...)
}

func TestReceivedTreeIsWhatWasSent(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	require.NoError(t, receiveTree(bytes.NewReader(append(sentFile("a/b", "one"), sentFile("c", "")...)), from))
	var sent bytes.Buffer
	require.NoError(t, sendTree(&sent, from))
	require.Equal(t, append(sentFile("a/b", "one"), sentFile("c", "")...), sent.Bytes())
	require.NoError(t, receiveTree(&sent, to))
	for name, want := range map[string]string{"a/b": "one", "c": ""} {
		got, err := os.ReadFile(filepath.Join(to, name))
		require.NoError(t, err)
		require.Equal(t, want, string(got), "%s", name)
	}
}

func TestReceivedTreeMustBeWhole(t *testing.T) {
	whole := sentFile("a", "content")
	for n := 1; n < len(whole); n++ {
		err := receiveTree(bytes.NewReader(whole[:n]), t.TempDir())
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%d bytes", n)
	}
}

func TestReceivedNamesStayInside(t *testing.T) {
	for _, name := range []string{"../a", "/a", "", "a/../../b", string(make([]byte, mostName+1))} {
		require.Error(t, receiveTree(bytes.NewReader(sentFile(name, "x")), t.TempDir()), "%.20q", name)
	}
}

func TestParentIsReadBehindAnyName(t *testing.T) {
	for _, tc := range []struct {
		stat string
		want int
		ok   bool
	}{
		{"12 (rsync) S 7 1 1", 7, true},
		{"12 (a) R 9 (b) c) S 7 1 1", 7, true},
		{"12 (rsync) S", 0, false},
		{"12 rsync S 7", 0, false},
		{"", 0, false},
	} {
		got, ok := parentOf([]byte(tc.stat))
		require.Equal(t, tc.ok, ok, "%q", tc.stat)
		require.Equal(t, tc.want, got, "%q", tc.stat)
	}
}
