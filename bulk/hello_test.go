package bulk

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

var testID = laneID{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}

// goldenHellos are by field: magic, version, kind, caps, strand, id, count, code.
var goldenHellos = []struct {
	hex string
	h   hello
}{
	{"f5706c62 01 21 00 00 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 0001 0000", hello{kind: helloOpen, id: testID, count: 1}},
	{"f5706c62 01 21 01 0f a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 0010 0000", hello{kind: helloOpen, zstd: true, strand: 15, id: testID, count: 16}},
	{"f5706c62 01 22 01 00 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 0004 0000", hello{kind: helloAccept, zstd: true, id: testID, count: 4}},
	{"f5706c62 01 23 00 00 00000000000000000000000000000000 0000 0003", hello{kind: helloRefuse, code: refuseNotAccepted}},
	{"f5706c62 01 23 00 00 00000000000000000000000000000000 0000 ffff", hello{kind: helloRefuse, code: 0xffff}},
}

func TestHelloGolden(t *testing.T) {
	for _, test := range goldenHellos {
		wire := unhex(t, test.hex)
		require.Equal(t, wire, test.h.append(nil), test.hex)
		require.Len(t, wire, helloSize)
		got, err := readHello(iotest.OneByteReader(bytes.NewReader(wire)))
		require.NoError(t, err, test.hex)
		require.Equal(t, test.h, got, test.hex)
		for n := range wire {
			_, err := readHello(bytes.NewReader(wire[:n]))
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%s, %d bytes", test.hex, n)
			_, err = readHello(io.MultiReader(bytes.NewReader(wire[:n]), iotest.ErrReader(io.ErrClosedPipe)))
			require.ErrorIs(t, err, io.ErrClosedPipe, "%s, %d bytes", test.hex, n)
		}
	}
}

func TestHelloKeepsTheRangesOfItsFields(t *testing.T) {
	for _, kind := range []helloKind{0, 0x20, helloOpen, helloAccept, helloRefuse, 0x24, 0xff} {
		for _, strand := range []int{0, 1, 15, 16, 255} {
			for _, count := range []int{0, 1, 2, 16, 17, 0xffff} {
				for _, code := range []refusal{0, 1, 0xffff} {
					for _, id := range []laneID{{}, testID} {
						h := hello{kind: kind, strand: strand, count: count, code: code, id: id}
						ok := false
						switch kind {
						case helloOpen:
							ok = strand < count && count <= 16 && code == 0 && id == testID
						case helloAccept:
							ok = strand == 0 && count >= 1 && count <= 16 && code == 0 && id == testID
						case helloRefuse:
							ok = strand == 0 && count == 0 && code != 0 && id == laneID{}
						}
						got, err := parseHello(h.append(nil))
						if ok {
							require.NoError(t, err, "%+v", h)
							require.Equal(t, h, got)
						} else {
							require.ErrorIs(t, err, errProtocol, "%+v", h)
						}
					}
				}
			}
		}
	}
}

func TestHelloOfAnotherVersionOrProtocolSaysSo(t *testing.T) {
	wire := hello{kind: helloOpen, id: testID, count: 1}.append(nil)
	for v := range 256 {
		b := bytes.Clone(wire)
		b[4] = byte(v)
		if _, err := parseHello(b); v != helloVersion {
			require.ErrorIs(t, err, errVersion)
			require.ErrorContains(t, err, fmt.Sprintf("version %d", v))
		}
	}
	_, err := readHello(bytes.NewReader([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")))
	require.ErrorIs(t, err, errProtocol)
	require.ErrorContains(t, err, `"GET / HT"`)
	for i := range helloMagic {
		b := bytes.Clone(wire)
		b[i] ^= 1
		_, err := parseHello(b)
		require.ErrorIs(t, err, errProtocol)
	}
}

// Capabilities that are not known change nothing.
func TestHelloIgnoresCapabilitiesItDoesNotKnow(t *testing.T) {
	wire := hello{kind: helloOpen, id: testID, count: 1}.append(nil)
	wire[6] = 0xfe
	h, err := parseHello(wire)
	require.NoError(t, err)
	require.False(t, h.zstd)
}

// Claim: bulk.ErrBusy, bulk.ErrNotTaken
func TestRefusalsAreTheirErrors(t *testing.T) {
	for code, want := range map[refusal]error{1: errProtocol, 2: errVersion, 3: ErrNotTaken, 4: ErrBusy} {
		require.ErrorIs(t, code.err(), want)
		require.Equal(t, code, refusalOf(fmt.Errorf("so: %w", want)))
	}
	require.ErrorContains(t, refusal(77).err(), "code 77")
	require.Equal(t, refuseNotAccepted, refusalOf(io.ErrClosedPipe))
	for range 20 {
		require.Equal(t, refuseBusy, refusalOf(fmt.Errorf("%w: %w", ErrNotTaken, ErrBusy)), "a hook that says it is busy")
	}
}
