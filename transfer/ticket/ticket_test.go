package ticket

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// golden is a ticket by field, with a source of each kind of ID.
const golden = "0093" + // length
	"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f" + // root
	"10 f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff" + // token
	"02" + // sources
	"00 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29" + // an Ed25519 key
	"02" + // its addresses
	"08 04c6336407 06 9cbb" + // /ip4/198.51.100.7/tcp/40123
	"0b 04c6336407 9102 9cbb cd03" + // /ip4/198.51.100.7/udp/40123/quic-v1
	"22 1220 9e2a9bd4e35c9e2bdd1a2a3b4c5d6e7f808182838485868788898a8b8c8d8e8f" + // another ID
	"00" // no addresses

func TestTicketsGolden(t *testing.T) {
	raw := unhex(t, golden)
	raw = binary.BigEndian.AppendUint32(raw, checksum(raw))
	require.Len(t, raw, 0x93)
	text := prefix + alphabet.EncodeToString(raw)
	require.Equal(t, "plt1acjqaaicamcakbqhbaequcymbuha6earcijrifiwc4mbsgq3dqor4hyq6dy7f47u6x3pp6hz7l57z7p674baao3ke66m5nvefvrkhkgqfjxq243fgikx"+
		"ohpciotdvqciugfvtwrjaieajrrtmqdqnhf3bmcmmm3ea6iqfhf3zubseeratyvjxvhdlspcxxi2fi5uyxlop6aidaudqscynb4irgfixdenr2hqawlgcc4q", text)
	k, err := Parse(text)
	require.NoError(t, err)
	require.Equal(t, byte(31), k.Root[31])
	require.Equal(t, unhex(t, "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"), k.Token)
	require.Len(t, k.Sources, 2)
	key, err := k.Sources[0].ID.ExtractPublicKey()
	require.NoError(t, err)
	pub, err := key.Raw()
	require.NoError(t, err)
	require.Equal(t, unhex(t, "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"), pub)
	require.Equal(t, addrs(t, "/ip4/198.51.100.7/tcp/40123", "/ip4/198.51.100.7/udp/40123/quic-v1"), k.Sources[0].Addrs)
	require.Empty(t, k.Sources[1].Addrs)
	require.Equal(t, text, encoded(t, k))
}

func TestATicketOfOnePeerIsShort(t *testing.T) {
	text := encoded(t, sample(t))
	t.Logf("%d characters", len(text))
	require.LessOrEqual(t, len(text), 260)
	require.Regexp(t, `^plt1[a-z2-7]+$`, text)
}

// Claim: ticket.Ticket.Root, ticket.Ticket.Sources, ticket.Ticket.Token
func TestWhatIsEncodedIsParsed(t *testing.T) {
	ids := []peer.ID{id(t, alice), id(t, bob)}
	list := addrs(t, append(four, "/dns/example.org/tcp/443/wss",
		"/ip4/203.0.113.9/tcp/4001/p2p/"+bob+"/p2p-circuit")...)
	rapid.Check(t, func(t *rapid.T) {
		k := Ticket{Token: rapid.SliceOfN(rapid.Byte(), 0, maxToken).Draw(t, "token")}
		copy(k.Root[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "root"))
		for _, id := range rapid.SliceOfNDistinct(rapid.SampledFrom(ids), 1, 2, rapid.ID).Draw(t, "ids") {
			info := peer.AddrInfo{ID: id}
			info.Addrs = append(info.Addrs, rapid.SliceOfN(rapid.SampledFrom(list), 0, maxAddrs).Draw(t, "addrs")...)
			k.Sources = append(k.Sources, info)
		}
		text, err := k.Encode()
		require.NoError(t, err)
		got, err := Parse(text)
		require.NoError(t, err)
		again, err := got.Encode()
		require.NoError(t, err)
		require.Equal(t, text, again)
		require.Equal(t, k.Root, got.Root)
		require.Equal(t, len(k.Sources), len(got.Sources))
	})
}

func TestTheOwnIDIsNotInAnAddress(t *testing.T) {
	k := sample(t)
	want := encoded(t, k)
	for i, a := range k.Sources[0].Addrs {
		k.Sources[0].Addrs[i] = a.Encapsulate(addrs(t, "/p2p/"+alice)[0])
	}
	require.Equal(t, want, encoded(t, k))
	other := addrs(t, "/ip4/203.0.113.9/tcp/4001/p2p/"+bob+"/p2p-circuit")
	k.Sources[0].Addrs = other
	got, err := Parse(encoded(t, k))
	require.NoError(t, err)
	require.Equal(t, other, got.Sources[0].Addrs)
}

// Claim: ticket.ErrInvalid
func TestTicketsThatCannotBeAreNotEncoded(t *testing.T) {
	for name, change := range map[string]func(*Ticket){
		"no source":     func(k *Ticket) { k.Sources = nil },
		"no ID":         func(k *Ticket) { k.Sources[0].ID = "" },
		"a long ID":     func(k *Ticket) { k.Sources[0].ID = peer.ID(strings.Repeat("x", maxID+1)) },
		"a source more": func(k *Ticket) { k.Sources = make([]peer.AddrInfo, maxSources+1) },
		"one twice":     func(k *Ticket) { k.Sources = append(k.Sources, k.Sources[0]) },
		"a long token":  func(k *Ticket) { k.Token = make([]byte, maxToken+1) },
		"9 addresses":   func(k *Ticket) { k.Sources[0].Addrs = addrs(t, append(append(four, four...), four[0])...) },
		"a long one":    func(k *Ticket) { k.Sources[0].Addrs = addrs(t, "/dns/"+strings.Repeat("x", 254)) },
		"only the ID":   func(k *Ticket) { k.Sources[0].Addrs = addrs(t, "/p2p/"+alice) },
		"too much": func(k *Ticket) {
			long := addrs(t, "/dns/"+strings.Repeat("x", 250))
			k.Sources = nil
			for i := range maxSources {
				info := peer.AddrInfo{ID: peer.ID([]byte{0, 1, byte(i)})}
				for range maxAddrs {
					info.Addrs = append(info.Addrs, long[0])
				}
				k.Sources = append(k.Sources, info)
			}
		},
	} {
		k := sample(t)
		change(&k)
		_, err := k.Encode()
		require.ErrorIs(t, err, ErrInvalid, name)
	}
}

// Claim: ticket.ErrMalformed
func TestAMalformedTicketIsNotParsed(t *testing.T) {
	good, err := sample(t).bytes()
	require.NoError(t, err)
	const tokenLen, sources, idLen, addrCount, firstAddr = 34, 51, 52, 85, 86
	for name, change := range map[string]func(b []byte) []byte{
		"a long token":        func(b []byte) []byte { b[tokenLen] = 65; return b },
		"no source":           func(b []byte) []byte { b[sources] = 0; return b },
		"a source more":       func(b []byte) []byte { b[sources] = 2; return b },
		"17 sources":          func(b []byte) []byte { b[sources] = 17; return b },
		"an ID that is none":  func(b []byte) []byte { b[idLen] = 32; return b },
		"a long ID":           func(b []byte) []byte { b[idLen] = 65; return b },
		"9 addresses":         func(b []byte) []byte { b[addrCount] = 9; return b },
		"an address less":     func(b []byte) []byte { b[addrCount]--; return b },
		"an empty address":    func(b []byte) []byte { b[firstAddr] = 0; return b },
		"an unknown protocol": func(b []byte) []byte { b[firstAddr+1] = 0x7f; return b },
		"bytes more":          func(b []byte) []byte { return append(b, 1) },
		"an Ed25519 key as another": func(b []byte) []byte {
			out := append(append([]byte(nil), b[:idLen]...), byte(len(ed25519ID)+32))
			return append(append(out, ed25519ID...), b[idLen+1:]...)
		},
	} {
		b := change(append([]byte(nil), good[:len(good)-sumSize]...))
		binary.BigEndian.PutUint16(b, uint16(len(b)+sumSize))
		b = binary.BigEndian.AppendUint32(b, checksum(b))
		_, err := Parse(prefix + alphabet.EncodeToString(b))
		require.ErrorIs(t, err, ErrMalformed, name)
	}
}

func FuzzParse(f *testing.F) {
	text := encoded(f, sample(f))
	f.Add(text)
	f.Add(strings.ToUpper(text))
	f.Add("> \"" + text[:40] + "\r\n" + text[40:] + "\"")
	f.Add("plt2aaaa")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := Parse(text)
		if err != nil {
			for _, known := range []error{ErrNotTicket, ErrVersion, ErrDamaged, ErrMalformed} {
				if errors.Is(err, known) {
					return
				}
			}
			t.Fatalf("an error of no kind: %v", err)
		}
		plain, err := clean(text)
		require.NoError(t, err)
		require.Equal(t, plain, encoded(t, k))
	})
}

// FuzzConsume gives the decoder bytes whose length and checksum are right.
func FuzzConsume(f *testing.F) {
	b, err := sample(f).bytes()
	require.NoError(f, err)
	f.Add(b[2 : len(b)-sumSize])
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body)+2+sumSize > maxBytes {
			return
		}
		b := append([]byte{0, 0}, body...)
		binary.BigEndian.PutUint16(b, uint16(len(b)+sumSize))
		b = binary.BigEndian.AppendUint32(b, checksum(b))
		text := prefix + alphabet.EncodeToString(b)
		if k, err := Parse(text); err == nil {
			require.Equal(t, text, encoded(t, k))
		}
	})
}
