package netcheck

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Protocol is the protocol between a client and a helper: see docs/NAT.md. A stream carries one request and its answers.
const Protocol = "/peerlane/netcheck/1.0.0"

// A kind is the first byte of a request.
type kind byte

const (
	kindSee  kind = 1 // at which address do you see me?
	kindSend kind = 2 // send to me from another port
	kindDial kind = 3 // dial me
)

func (k kind) String() string {
	switch k {
	case kindSee:
		return "SEE"
	case kindSend:
		return "SEND"
	case kindDial:
		return "DIAL"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// The transports of DIAL, as IP numbers them.
const (
	overTCP  = 6
	overQUIC = 17
)

// A request is a client's request to a helper.
type request struct {
	kind  kind
	port  uint16  // the client's port; in SEND, zero is the connection's port
	nonce [8]byte // of SEND
	over  byte    // of DIAL
	peer  peer.ID // of DIAL: the peer that must answer
}

const (
	maxPeerID = 64
	maxSeen   = 128 // bytes of an address
)

var errMalformed = errors.New("netcheck: malformed message")

// encodeRequest returns a request in bytes: the kind and the port, then for SEND the nonce, and for DIAL the transport, the length of the
// Peer ID and the Peer ID.
func encodeRequest(r request) []byte {
	b := binary.BigEndian.AppendUint16([]byte{byte(r.kind)}, r.port)
	switch r.kind {
	case kindSend:
		b = append(b, r.nonce[:]...)
	case kindDial:
		b = append(append(b, r.over, byte(len(r.peer))), r.peer...)
	}
	return b
}

// readRequest reads a request.
func readRequest(from io.Reader) (r request, err error) {
	var head [3]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return r, err
	}
	r.kind, r.port = kind(head[0]), binary.BigEndian.Uint16(head[1:])
	switch r.kind {
	case kindSee:
	case kindSend:
		_, err = io.ReadFull(from, r.nonce[:])
	case kindDial:
		r.over, r.peer, err = readTarget(from)
	default:
		err = fmt.Errorf("%w: %v", errMalformed, r.kind)
	}
	return r, err
}

// readTarget reads the fields of DIAL after the port.
func readTarget(from io.Reader) (over byte, pid peer.ID, err error) {
	var head [2]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return 0, "", err
	}
	if head[0] != overTCP && head[0] != overQUIC || head[1] > maxPeerID {
		return 0, "", errMalformed
	}
	id := make([]byte, head[1])
	if _, err := io.ReadFull(from, id); err != nil {
		return 0, "", err
	}
	if pid, err = peer.IDFromBytes(id); err != nil {
		return 0, "", fmt.Errorf("%w: %w", errMalformed, err)
	}
	return head[0], pid, nil
}

// A status is the first byte of an answer.
type status byte

const (
	statusDone    status = 0
	statusMissed  status = 1 // the client was not reached, or no datagram of it arrived
	statusBusy    status = 2 // a limit of the helper is reached
	statusUnable  status = 3 // the helper cannot serve the request
	statusUnknown status = 4 // this and higher values count as unable
)

// An answer is a helper's answer.
type answer struct {
	status status
	clock  time.Time    // of the helper
	port   uint16       // of SEND: the port that it sends from
	seen   ma.Multiaddr // the address at which it sees the client
}

// encodeAnswer returns an answer in bytes: the status, the time in milliseconds since 1970, the port, the length of the address and the
// address.
func encodeAnswer(a answer) []byte {
	b := binary.BigEndian.AppendUint64([]byte{byte(a.status)}, uint64(a.clock.UnixMilli()))
	seen := a.seen.Bytes()
	if len(seen) > maxSeen {
		seen = nil
	}
	b = append(binary.BigEndian.AppendUint16(b, a.port), byte(len(seen)))
	return append(b, seen...)
}

// readAnswer reads an answer.
func readAnswer(from io.Reader) (a answer, err error) {
	var head [12]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return a, err
	}
	a.status = min(status(head[0]), statusUnknown)
	a.clock = time.UnixMilli(int64(binary.BigEndian.Uint64(head[1:])))
	a.port = binary.BigEndian.Uint16(head[9:])
	if head[11] > maxSeen {
		return a, errMalformed
	}
	if head[11] == 0 {
		return a, nil
	}
	seen := make([]byte, head[11])
	if _, err := io.ReadFull(from, seen); err != nil {
		return a, err
	}
	if a.seen, err = ma.NewMultiaddrBytes(seen); err != nil {
		return a, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return a, nil
}

// datagramSize is the length of a datagram of SEND.
const datagramSize = 16

// datagram returns a datagram that ends with the nonce. Its first bits distinguish it from QUIC (RFC 9000, section 17.2: the fixed bit) and
// from the other protocols that share a port with QUIC (RFC 9443).
func datagram(nonce [8]byte) []byte {
	b := make([]byte, datagramSize)
	b[0] = 4 + byte(rand.N(12))
	for i := 1; i < datagramSize-len(nonce); i++ {
		b[i] = byte(rand.N(256))
	}
	copy(b[datagramSize-len(nonce):], nonce[:])
	return b
}

// nonceOf returns the nonce of a datagram; ok is false for other packets.
func nonceOf(b []byte) (nonce [8]byte, ok bool) {
	if len(b) != datagramSize || b[0] < 4 || b[0] > 15 {
		return nonce, false
	}
	copy(nonce[:], b[datagramSize-len(nonce):])
	return nonce, true
}
