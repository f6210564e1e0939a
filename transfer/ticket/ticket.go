package ticket

import (
	"encoding/base32"
	"encoding/binary"
	"hash/crc32"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// The limits (spec 2).
const (
	maxSources = 16
	maxAddrs   = 8 // of one source
	maxToken   = 64

	maxAddr  = 255
	maxID    = 64
	maxBytes = 4096
)

const (
	name    = "plt"
	prefix  = name + "1" // spec 3.1
	digits  = "abcdefghijklmnopqrstuvwxyz234567"
	sumSize = 4
	minSize = 2 + 32 + 1 + 1 + sumSize
)

var (
	alphabet   = base32.NewEncoding(digits).WithPadding(base32.NoPadding)
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	// ed25519ID is what the ID of an Ed25519 key begins with: identity multihash, 36 bytes; key type 1; data, 32 bytes.
	ed25519ID = string([]byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20})
)

// A Ticket says which tree can be fetched, from whom, and by which right.
type Ticket struct {
	Sources []peer.AddrInfo // who has it: 1 to 16 peers, each once, with at most 8 addresses
	Root    [32]byte        // of the manifest (manifest spec 3.2)
	Token   []byte          // at most 64 bytes
}

// Encode returns the ticket's text. The error matches ErrInvalid, and says what is too many or too long: see Choose.
func (t Ticket) Encode() (string, error) {
	b, err := t.bytes()
	if err != nil {
		return "", err
	}
	return prefix + alphabet.EncodeToString(b), nil
}

// bytes returns the ticket's bytes (spec 2.1).
func (t Ticket) bytes() ([]byte, error) {
	switch {
	case len(t.Token) > maxToken:
		return nil, invalidf("the token has %d bytes: at most %d", len(t.Token), maxToken)
	case len(t.Sources) == 0 || len(t.Sources) > maxSources:
		return nil, invalidf("%d sources: 1 to %d", len(t.Sources), maxSources)
	}
	b := []byte{0, 0} // length
	b = append(b, t.Root[:]...)
	b = append(b, byte(len(t.Token)))
	b = append(b, t.Token...)
	b = append(b, byte(len(t.Sources)))
	seen := make(map[peer.ID]bool)
	for _, source := range t.Sources {
		if seen[source.ID] {
			return nil, invalidf("%s is there twice", source.ID)
		}
		seen[source.ID] = true
		var err error
		if b, err = appendSource(b, source); err != nil {
			return nil, err
		}
	}
	n := len(b) + sumSize
	if n > maxBytes {
		return nil, invalidf("%d bytes: at most %d", n, maxBytes)
	}
	binary.BigEndian.PutUint16(b, uint16(n))
	return binary.BigEndian.AppendUint32(b, checksum(b)), nil
}

// checksum returns that of a ticket's bytes (spec 2.6).
func checksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(prefix), castagnoli), castagnoli, b)
}

// appendSource appends spec 2.4.
func appendSource(b []byte, info peer.AddrInfo) ([]byte, error) {
	id := string(info.ID)
	switch {
	case isEd25519(id):
		b = append(b, 0)
		b = append(b, id[len(ed25519ID):]...)
	case id == "" || len(id) > maxID:
		return nil, invalidf("a peer ID of %d bytes: 1 to %d", len(id), maxID)
	default:
		b = append(b, byte(len(id)))
		b = append(b, id...)
	}
	if len(info.Addrs) > maxAddrs {
		return nil, invalidf("%d addresses of %s: at most %d", len(info.Addrs), info.ID, maxAddrs)
	}
	b = append(b, byte(len(info.Addrs)))
	for _, a := range info.Addrs {
		bare := withoutOwn(a, info.ID).Bytes()
		if len(bare) == 0 || len(bare) > maxAddr {
			return nil, invalidf("an address of %s has %d bytes: 1 to %d", info.ID, len(bare), maxAddr)
		}
		b = append(b, byte(len(bare)))
		b = append(b, bare...)
	}
	return b, nil
}

func isEd25519(id string) bool {
	return len(id) == len(ed25519ID)+32 && id[:len(ed25519ID)] == ed25519ID
}

// withoutOwn returns a without the peer's own /p2p/ at its end.
func withoutOwn(a ma.Multiaddr, id peer.ID) ma.Multiaddr {
	for {
		rest, last := ma.SplitLast(a)
		if last == nil || last.Code() != ma.P_P2P || string(last.RawValue()) != string(id) {
			return a
		}
		a = rest
	}
}
