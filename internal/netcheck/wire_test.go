package netcheck

import (
	"bytes"
	"encoding/hex"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// aPeer is a Peer ID.
func aPeer(t testing.TB) peer.ID {
	pid, err := peer.Decode("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")
	require.NoError(t, err)
	return pid
}

// The bytes are those in docs/NAT.md.
func TestRequestEncoding(t *testing.T) {
	pid := aPeer(t)
	for _, tt := range []struct {
		r    request
		want string
	}{
		{request{kind: kindSee}, "01" + "0000"},
		{request{kind: kindSend, port: 4001, nonce: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}}, "02" + "0fa1" + "0102030405060708"},
		{request{kind: kindDial, port: 4001, over: overQUIC, peer: pid}, "03" + "0fa1" + "11" + "26" + hex.EncodeToString([]byte(pid))},
	} {
		b := encodeRequest(tt.r)
		require.Equal(t, tt.want, hex.EncodeToString(b), "%v", tt.r.kind)
		got, err := readRequest(bytes.NewReader(b))
		require.NoError(t, err)
		require.Equal(t, tt.r, got)
		for n := range b {
			_, err := readRequest(bytes.NewReader(b[:n]))
			require.Error(t, err, "%v: %d of %d bytes", tt.r.kind, n, len(b))
		}
	}
}

func TestAnswerEncoding(t *testing.T) {
	seen := ma.StringCast("/ip4/11.0.0.1/udp/4001/quic-v1")
	for _, tt := range []struct {
		a    answer
		want string
	}{
		{answer{status: statusBusy, clock: time.UnixMilli(1)}, "02" + "0000000000000001" + "0000" + "00"},
		{answer{clock: time.UnixMilli(256), port: 5, seen: seen}, "00" + "0000000000000100" + "0005" + "0b" + hex.EncodeToString(seen.Bytes())},
	} {
		b := encodeAnswer(tt.a)
		require.Equal(t, tt.want, hex.EncodeToString(b))
		got, err := readAnswer(bytes.NewReader(b))
		require.NoError(t, err)
		require.Equal(t, tt.a, got)
		for n := range b {
			_, err := readAnswer(bytes.NewReader(b[:n]))
			require.Error(t, err, "%d of %d bytes", n, len(b))
		}
	}
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	for _, bad := range []string{
		"00" + "0000",
		"04" + "0000",
		"03" + "0fa1" + "07" + "00",
		"03" + "0fa1" + "06" + "41",
		"03" + "0fa1" + "06" + "02" + "ffff",
		"03" + "0fa1" + "06" + "00",
	} {
		b, err := hex.DecodeString(bad)
		require.NoError(t, err)
		_, err = readRequest(io.MultiReader(bytes.NewReader(b), zeros{}))
		require.ErrorIs(t, err, errMalformed, bad)
	}
	head := "00" + "0000000000000000" + "0000"
	for _, bad := range []string{head + "81", head + "04" + "ffffffff"} {
		b, err := hex.DecodeString(bad)
		require.NoError(t, err)
		_, err = readAnswer(io.MultiReader(bytes.NewReader(b), zeros{}))
		require.ErrorIs(t, err, errMalformed, bad)
	}
	require.Equal(t, "kind 7", kind(7).String())
}

// zeros is an endless reader of zeros.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// An address that is too long is omitted, not truncated.
func TestLongAddressesAreOmitted(t *testing.T) {
	long := ma.StringCast("/ip4/11.0.0.1")
	for range 50 {
		long = long.Encapsulate(ma.StringCast("/tcp/1"))
	}
	a, err := readAnswer(bytes.NewReader(encodeAnswer(answer{seen: long})))
	require.NoError(t, err)
	require.Nil(t, a.seen)
}

// Datagrams cannot be mistaken for QUIC, or for other protocols that share its port.
func TestDatagramsCannotBeMistaken(t *testing.T) {
	for range 1000 {
		nonce := newNonce()
		b := datagram(nonce)
		require.Len(t, b, datagramSize)
		require.GreaterOrEqual(t, b[0], byte(4))
		require.LessOrEqual(t, b[0], byte(15))
		got, ok := nonceOf(b)
		require.True(t, ok)
		require.Equal(t, nonce, got)
		b[0] = 0x40
		_, ok = nonceOf(b)
		require.False(t, ok)
	}
	_, ok := nonceOf(make([]byte, datagramSize+1))
	require.False(t, ok)
}

func FuzzRequest(f *testing.F) {
	for _, r := range []request{{kind: kindSee}, {kind: kindSend, port: 1}, {kind: kindDial, over: overTCP, peer: aPeer(f)}} {
		f.Add(encodeRequest(r))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readRequest(bytes.NewReader(b))
		if err != nil {
			return
		}
		again := encodeRequest(r)
		require.Equal(t, b[:len(again)], again)
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(encodeAnswer(answer{clock: time.UnixMilli(1), seen: ma.StringCast("/ip4/11.0.0.1/tcp/1")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := readAnswer(bytes.NewReader(b))
		if err != nil {
			return
		}
		got, err := readAnswer(bytes.NewReader(encodeAnswer(a)))
		require.NoError(t, err)
		require.Equal(t, a, got)
	})
}

// A datagram of the router, or of whoever answers in its place, is an answer of one protocol at most, and says no more than is in it.
func FuzzDatagram(f *testing.F) {
	f.Add(datagram([8]byte{1, 2, 3}))
	f.Add([]byte{0, 128, 0, 0, 0, 0, 0, 9, 11, 0, 0, 1})
	f.Add([]byte{0, 128, 0, 3})
	f.Add(append([]byte{2, 128, 0, 0}, make([]byte, 20)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		kinds := 0
		if nonce, ok := nonceOf(b); ok {
			again := datagram(nonce)
			require.Len(t, b, len(again))
			require.Equal(t, b[len(b)-len(nonce):], again[len(b)-len(nonce):])
			kinds++
		}
		if isNATPMP(b) {
			outside, ok := parseNATPMP(b)
			require.Equal(t, b[2] == 0 && b[3] == 0, ok)
			require.Equal(t, ok && len(b) >= 12, outside.IsValid())
			if outside.IsValid() {
				require.Equal(t, b[8:12], outside.AsSlice())
			}
			kinds++
		}
		if isPCP(b) {
			require.GreaterOrEqual(t, len(b), 24)
			kinds++
		}
		require.LessOrEqual(t, kinds, 1)
	})
}
