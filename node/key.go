package node

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// Errors of a key file, for errors.Is. The message names the remedy.
var (
	// ErrKeyFormat: the file does not hold an Ed25519 private key.
	ErrKeyFormat = errors.New("not an Ed25519 private key")
	// ErrKeyExposed: other users of the machine may read or write the file.
	ErrKeyExposed = errors.New("key file is open to other users")
)

// maxKeyFile is far more than a key needs. Larger files are not read.
const maxKeyFile = 16 << 10

// pemType is the PEM type of PKCS #8.
const pemType = "PRIVATE KEY"

// LoadKey returns the Ed25519 private key in a file, and whether it is new. The file is PEM (PKCS #8), as openssl genpkey -algorithm
// ed25519 writes it. LoadKey also reads libp2p's own binary form. If there is no file, LoadKey writes a new key, readable only by its
// owner. The file appears complete or not at all. If another process creates the file at the same time, LoadKey loads that key and never
// overwrites it.
//
// The error matches fs.ErrPermission, fs.ErrNotExist (no such folder), ErrKeyExposed or ErrKeyFormat, and names the remedy.
func LoadKey(path string) (key crypto.PrivKey, created bool, err error) {
	key, err = readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	if key, err = newKey(); err != nil {
		return nil, false, err
	}
	err = createKey(path, key)
	if errors.Is(err, fs.ErrExist) {
		key, err = readKey(path)
		return key, false, err
	}
	if err != nil {
		return nil, false, adviseFolder(path, err)
	}
	return key, true, nil
}

// newKey returns a new Ed25519 key.
func newKey() (crypto.PrivKey, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	return key, err
}

// readKey returns the key in a file that only its owner may use.
func readKey(path string) (crypto.PrivKey, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("key file: %w: run as the owner of the file, or use another file", err)
	}
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer func() { _ = f.Close() }() // opened for reading
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("key file %s: %w: it is a %s, use another name", path, ErrKeyFormat, kind(info.Mode()))
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, fmt.Errorf("key file %s: %w (mode %04o): run chmod 600 %s, and if others have had access use a new key",
			path, ErrKeyExposed, mode, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w: restore it from a backup, or move it away to get a new key and Peer ID",
			path, err)
	}
	return key, nil
}

func kind(mode fs.FileMode) string {
	if mode.IsDir() {
		return "folder"
	}
	return "special file"
}

// parseKey returns the key in a file's content: PEM, or libp2p's protobuf.
func parseKey(data []byte) (crypto.PrivKey, error) {
	switch {
	case len(data) == 0:
		return nil, fmt.Errorf("%w: it is empty", ErrKeyFormat)
	case len(data) > maxKeyFile:
		return nil, fmt.Errorf("%w: it is over %d bytes long", ErrKeyFormat, maxKeyFile)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return parseLibp2pKey(data)
	}
	if block.Type != pemType {
		return nil, fmt.Errorf("%w: it is PEM of type %q, want %q", ErrKeyFormat, block.Type, pemType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyFormat, err)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: it is a %T", ErrKeyFormat, parsed)
	}
	key, _, err := crypto.KeyPairFromStdKey(&private)
	return key, err
}

// parseLibp2pKey parses the output of crypto.MarshalPrivateKey.
func parseLibp2pKey(data []byte) (crypto.PrivKey, error) {
	key, err := crypto.UnmarshalPrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("%w: neither PEM nor libp2p's form", ErrKeyFormat)
	}
	if key.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("%w: it is of type %s", ErrKeyFormat, key.Type())
	}
	// Raw is the seed and the public key. libp2p accepts any pair, but the signatures of a mismatched pair cannot be verified.
	raw, err := key.Raw()
	if err != nil || !bytes.Equal(raw, ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])) {
		return nil, fmt.Errorf("%w: its public half does not match", ErrKeyFormat)
	}
	return key, nil
}

// formatKey returns the content of a key file.
func formatKey(key crypto.PrivKey) ([]byte, error) {
	private, err := crypto.PrivKeyToStdKey(key)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(*private.(*ed25519.PrivateKey)) // newKey returns Ed25519 keys only
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// createKey writes key to a file that must not exist. The error matches fs.ErrExist if it does. createKey writes a temporary file and links
// it to its name. Unlike a rename, a link never replaces a file.
func createKey(path string, key crypto.PrivKey) error {
	data, err := formatKey(key)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".peerlane-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // only the link remains
	if err := writeAndClose(tmp, data); err != nil {
		return err
	}
	err = os.Link(tmp.Name(), path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	return createInPlace(path, data)
}

// createInPlace is for file systems without hard links. It never overwrites, but a reader may see an incomplete file.
func createInPlace(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := writeAndClose(f, data); err != nil {
		_ = os.Remove(path) // the first error counts
		return err
	}
	return nil
}

// writeAndClose writes data, syncs the file and closes it.
func writeAndClose(f *os.File, data []byte) error {
	_, err := f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// adviseFolder adds the remedy to an error of creating a key file.
func adviseFolder(path string, err error) error {
	folder := filepath.Dir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("key file %s: %w: make the folder %s first", path, err, folder)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("key file %s: %w: no right to write into the folder %s", path, err, folder)
	}
	return fmt.Errorf("key file %s: %w", path, err)
}
