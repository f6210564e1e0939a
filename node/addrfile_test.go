package node

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// Claim: node.Options.AddrFile
func TestAPeerIsFoundWhereItWasReachedBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "addrs")
	b, err := New(t.Context(), &Options{Loopback: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	a, err := New(t.Context(), &Options{Loopback: true, AddrFile: path})
	require.NoError(t, err)
	require.ErrorIs(t, a.Host().Connect(t.Context(), peer.AddrInfo{ID: b.ID()}), routing.ErrNotFound)
	require.NoError(t, a.Host().Connect(t.Context(), b.Info()))
	require.NoError(t, b.Host().Connect(t.Context(), a.Info()), "for a this is an inbound connection, if any")
	require.NoError(t, a.Close())
	info, err := os.Stat(path)
	require.NoError(t, err)
	if runtime.GOOS != "windows" {
		require.Equal(t, os.FileMode(0o600), info.Mode())
	}

	for range 2 { // the second time without a change
		a, err = New(t.Context(), &Options{NoListen: true, AddrFile: path})
		require.NoError(t, err)
		require.NoError(t, a.Host().Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
		require.NoError(t, a.Close())
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "no temporary file remains")
}

// The file is not the only source of addresses, because the peer may have moved.
func TestAnAddressFileIsNotTheOnlySource(t *testing.T) {
	b, err := New(t.Context(), &Options{Loopback: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	path := filepath.Join(t.TempDir(), "addrs")
	stale := fmt.Sprintf("%s\n%d /ip4/127.0.0.1/tcp/1/p2p/%s\n", addrFileHead, time.Now().Unix(), b.ID())
	require.NoError(t, os.WriteFile(path, []byte(stale), 0o600))
	var at []string
	for _, addr := range b.Info().Addrs {
		at = append(at, addr.String())
	}
	a, err := New(t.Context(), &Options{NoListen: true, AddrFile: path, Discovery: []Discovery{answering(0, at...)}})
	require.NoError(t, err)
	require.NoError(t, a.Host().Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
	require.NoError(t, a.Close())
}

// The file is asked once: it does not find newer addresses.
func TestAnAddressFileIsNotAskedAgain(t *testing.T) {
	id := newPeerID(t)
	path := filepath.Join(t.TempDir(), "addrs")
	stale := fmt.Sprintf("%s\n%d /ip4/127.0.0.1/tcp/1/p2p/%s\n", addrFileHead, time.Now().Unix(), id)
	require.NoError(t, os.WriteFile(path, []byte(stale), 0o600))
	a, err := New(t.Context(), &Options{NoListen: true, AddrFile: path})
	require.NoError(t, err)
	began := time.Now()
	require.Error(t, a.Host().Connect(t.Context(), peer.AddrInfo{ID: id}), "nothing listens there")
	require.Less(t, time.Since(began), searchTime/2, "it did not wait for another address")
	require.NoError(t, a.Close())
}

// Claim: node.Options.Logger
func TestTheLoggerReceivesADamagedAddressFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "addrs")
	require.NoError(t, os.WriteFile(path, []byte("nonsense"), 0o600))
	var log bytes.Buffer
	n, err := New(t.Context(), &Options{NoListen: true, AddrFile: path, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	require.NoError(t, n.Close())
	require.Contains(t, log.String(), path)
	n, err = New(t.Context(), &Options{NoListen: true, AddrFile: path})
	require.NoError(t, err)
	require.NoError(t, n.Close())
}

func TestADamagedAddressFileIsReportedAndReplaced(t *testing.T) {
	now := time.Now().Unix()
	good := fmt.Sprintf("%d /ip4/127.0.0.1/tcp/7/p2p/%s", now, testPeer)
	id, err := peer.Decode(testPeer)
	require.NoError(t, err)
	for content, v := range map[string]struct {
		found bool
		says  string
	}{
		"":                                   {false, "the first line is not"},
		"peerlane addresses 2\n" + good:      {false, "the first line is not"},
		addrFileHead + "\n" + good + "\n":    {true, ""},
		addrFileHead + "\n\x00\xff\n" + good: {true, "line 2: "},
		addrFileHead + "\nsoon /ip4/1.2.3.4\n" + good + "\n":           {true, `\"soon\" is not a time`},
		addrFileHead + "\n" + good + "\n1 12D3":                        {true, "line 3: "},
		addrFileHead + "\n" + fmt.Sprint(now) + " " + testPeer:         {false, "is not one address"},
		addrFileHead + "\n1 /ip4/127.0.0.1/tcp/7/p2p/" + testPeer:      {false, ""}, // too old
		addrFileHead + "\n" + good + "\n" + strings.Repeat("x", 1<<20): {true, "token too long"},
	} {
		path := filepath.Join(t.TempDir(), "addrs")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		var log bytes.Buffer
		f := newAddrFile(path, slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, f.Start(nil))
		_, err := f.FindPeer(t.Context(), id)
		require.Equal(t, v.found, err == nil, "%.200q", content)
		if v.says == "" {
			require.Empty(t, log.String(), "%.200q", content)
		} else {
			require.Contains(t, log.String(), v.says, "%.200q", content)
		}
		f.dirty <- struct{}{}
		require.NoError(t, f.Close())
		require.NoError(t, f.Close())
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(string(b), addrFileHead+"\n"))
	}
}

func TestAnAddressFileThatCannotBeWrittenIsReported(t *testing.T) {
	var log bytes.Buffer
	path := filepath.Join(t.TempDir(), "none", "addrs")
	f := newAddrFile(path, slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, f.Start(nil))
	f.dirty <- struct{}{}
	require.NoError(t, f.Close())
	require.Contains(t, log.String(), "cannot be written")
}

func TestAnAddressFileIsBounded(t *testing.T) {
	f := newAddrFile("", nil)
	began := time.Now()
	for i := range 2 * maxFilePeers {
		for port := range 2 * maxFileAddrs {
			at := ma.StringCast(fmt.Sprintf("/ip4/1.2.3.4/tcp/%d", port+1))
			f.addLocked(peer.ID(fmt.Sprint(i)), workedAddr{at, began.Add(time.Duration(i*100+port) * time.Second)})
		}
		f.trimLocked()
	}
	require.Len(t, f.peers, maxFilePeers)
	last := f.peers[peer.ID(fmt.Sprint(2*maxFilePeers-1))]
	require.Len(t, last, maxFileAddrs)
	require.Equal(t, "/ip4/1.2.3.4/tcp/8", last[0].addr.String(), "the newest first")
	require.Less(t, len(f.format()), maxAddrFile)
	require.False(t, f.addLocked("511", workedAddr{last[0].addr, last[0].at.Add(time.Minute)}), "a minute later is no reason to write")
	require.True(t, f.addLocked("511", workedAddr{last[1].addr, last[0].at.Add(time.Minute)}))
	require.Equal(t, "/ip4/1.2.3.4/tcp/7", f.peers["511"][0].addr.String())
}

// After a clock that was ahead, what was written then does not stay for good, nor crowd out what works now.
func TestAddressesOfTheFutureAreAsOldAsTheFileIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "addrs")
	var content strings.Builder
	content.WriteString(addrFileHead + "\n")
	for port := range maxFileAddrs {
		fmt.Fprintf(&content, "%d /ip4/127.0.0.1/tcp/%d/p2p/%s\n", int64(1)<<40, port+1, testPeer)
	}
	require.NoError(t, os.WriteFile(path, []byte(content.String()), 0o600))
	f := newAddrFile(path, nil)
	require.NoError(t, f.read())
	id, err := peer.Decode(testPeer)
	require.NoError(t, err)
	now := workedAddr{ma.StringCast("/ip4/127.0.0.1/tcp/99"), time.Now().Add(time.Second)}
	f.addLocked(id, now)
	require.Equal(t, now, f.peers[id][0])
	require.Len(t, f.peers[id], maxFileAddrs)
	for _, w := range f.peers[id][1:] {
		require.False(t, w.at.After(time.Now()))
	}
}

// What opens without an end, as a named pipe does, is not opened.
func TestAnAddressFileIsARegularFile(t *testing.T) {
	err := newAddrFile(t.TempDir(), nil).read()
	require.ErrorContains(t, err, "not a regular file")
}

func FuzzParseWorked(f *testing.F) {
	f.Add("1 /ip4/127.0.0.1/tcp/7/p2p/" + testPeer)
	f.Add("x /ip4/127.0.0.1/tcp/7/p2p/" + testPeer)
	f.Fuzz(func(t *testing.T, line string) {
		id, w, err := parseWorked(line)
		if err != nil {
			return
		}
		again, same, err := parseWorked(fmt.Sprintf("%d %s/p2p/%s", w.at.Unix(), w.addr, id))
		require.NoError(t, err)
		require.Equal(t, id, again)
		require.True(t, w.addr.Equal(same.addr))
		require.Equal(t, w.at, same.at)
	})
}

func TestAnAddressFileMustBeAbleToExist(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for path, want := range map[string]string{
		filepath.Join(dir, "none", "addrs"): "cannot be used: ",
		filepath.Join(file, "addrs"):        `file" is not a folder`,
		dir:                                 "is not a regular file",
	} {
		_, err := New(t.Context(), &Options{NoListen: true, AddrFile: path})
		require.ErrorIs(t, err, ErrInvalid, path)
		require.ErrorContains(t, err, "Options.AddrFile: ", path)
		require.ErrorContains(t, err, want, path)
	}
}
