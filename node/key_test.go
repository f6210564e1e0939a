package node

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
)

// keyFile writes a key file that only its owner can read.
func keyFile(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

func TestLoadKeyMakesTheFileOnceForItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	made, created, err := LoadKey(path)
	require.NoError(t, err)
	require.True(t, created)
	info, err := os.Stat(path)
	require.NoError(t, err)
	if runtime.GOOS != "windows" {
		require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	}
	read, created, err := LoadKey(path)
	require.NoError(t, err)
	require.False(t, created)
	require.True(t, made.Equals(read))
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1, "no temporary file remains")
}

// All parallel calls return the key that is in the file.
func TestLoadKeyNeverOverwrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	keys, made := make([]crypto.PrivKey, 16), make([]bool, 16)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], made[i], err = LoadKey(path); err != nil {
				t.Errorf("LoadKey %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	final, _, err := LoadKey(path)
	require.NoError(t, err)
	makers := 0
	for i, k := range keys {
		require.True(t, final.Equals(k), "key %d", i)
		if made[i] {
			makers++
		}
	}
	require.Equal(t, 1, makers)
}

// As on file systems without hard links.
func TestCreateInPlaceNeverOverwrites(t *testing.T) {
	path := keyFile(t, []byte("precious"))
	require.ErrorIs(t, createInPlace(path, []byte("new")), fs.ErrExist)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "precious", string(data))
	require.NoError(t, createInPlace(path+"2", []byte("new")))
	info, err := os.Stat(path + "2")
	require.NoError(t, err)
	if runtime.GOOS != "windows" {
		require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	}
}

// The key of RFC 8410, section 10.3, in the form that openssl writes, and its Peer ID must not change.
func TestLoadKeyReadsOpensslAndLibp2pFiles(t *testing.T) {
	const pemKey = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
`
	key, created, err := LoadKey(keyFile(t, []byte(pemKey)))
	require.NoError(t, err)
	require.False(t, created)
	again, err := formatKey(key)
	require.NoError(t, err)
	require.Equal(t, pemKey, string(again))
	pid, err := peer.IDFromPrivateKey(key)
	require.NoError(t, err)
	require.Equal(t, "12D3KooWBYsWyhEg11Pgw2oQ5qkouQAXdRgEnqby9CZFg7y7smVi", pid.String())
	binary, err := crypto.MarshalPrivateKey(key)
	require.NoError(t, err)
	same, _, err := LoadKey(keyFile(t, binary))
	require.NoError(t, err)
	require.True(t, key.Equals(same))
}

// Claim: node.ErrKeyFormat
func TestLoadKeyRejectsOtherFilesAndKeepsThem(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	require.NoError(t, err)
	secp, _, err := crypto.GenerateSecp256k1Key(rand.Reader)
	require.NoError(t, err)
	secpData, err := crypto.MarshalPrivateKey(secp)
	require.NoError(t, err)
	good, err := newKey()
	require.NoError(t, err)
	whole, err := formatKey(good)
	require.NoError(t, err)
	for want, data := range map[string][]byte{
		"it is empty":           {},
		"neither PEM nor":       []byte("not a key\n"),
		"over 16384 bytes":      bytes.Repeat([]byte{'x'}, maxKeyFile+1),
		"*ecdsa.PrivateKey":     pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		`"EC PRIVATE KEY"`:      pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
		"Secp256k1":             secpData,
		"its public half":       append([]byte{8, 1, 18, 64}, bytes.Repeat([]byte{'0'}, 64)...), // found by FuzzParseKey
		"not an Ed25519":        pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("junk")}),
		"move it away to get a": whole[:len(whole)/2],
	} {
		path := keyFile(t, data)
		_, _, err := LoadKey(path)
		require.ErrorIs(t, err, ErrKeyFormat, want)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, path)
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(data), string(after), want)
	}
}

// Claim: node.ErrKeyExposed
func TestLoadKeyRejectsAFileThatOthersCanRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no permission bits")
	}
	key, err := newKey()
	require.NoError(t, err)
	data, err := formatKey(key)
	require.NoError(t, err)
	path := keyFile(t, data)
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o666} {
		require.NoError(t, os.Chmod(path, mode))
		_, _, err = LoadKey(path)
		require.ErrorIs(t, err, ErrKeyExposed, "%o", mode)
		require.ErrorContains(t, err, "chmod 600 "+path)
	}
}

func TestLoadKeyErrorsNameTheRemedyForFolders(t *testing.T) {
	_, _, err := LoadKey(filepath.Join(t.TempDir(), "none", "key"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "make the folder")
	_, _, err = LoadKey(t.TempDir())
	require.ErrorIs(t, err, ErrKeyFormat)
	require.ErrorContains(t, err, "it is a folder")
	err = adviseFolder("/x/key", fs.ErrPermission)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "no right to write into the folder")
}

func TestLoadKeyErrorsNameTheOwner(t *testing.T) {
	if os.Geteuid() <= 0 {
		t.Skip("root may read every file, and Windows has no permission bits")
	}
	path := keyFile(t, []byte("x"))
	require.NoError(t, os.Chmod(path, 0))
	_, _, err := LoadKey(path)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "run as the owner")
}

// For any content, parseKey returns ErrKeyFormat, or a key that formatKey and parseKey preserve.
func FuzzParseKey(f *testing.F) {
	key, err := newKey()
	require.NoError(f, err)
	text, err := formatKey(key)
	require.NoError(f, err)
	binary, err := crypto.MarshalPrivateKey(key)
	require.NoError(f, err)
	f.Add(text)
	f.Add(binary)
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := parseKey(data)
		if err != nil {
			require.ErrorIs(t, err, ErrKeyFormat)
			return
		}
		text, err := formatKey(key)
		require.NoError(t, err)
		again, err := parseKey(text)
		require.NoError(t, err)
		require.True(t, key.Equals(again))
	})
}
