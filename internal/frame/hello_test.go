package frame

import (
	"bytes"
	"errors"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
)

// ramp returns n bytes that count up from first.
func ramp(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

// noise returns the value of a Noise field: a key id and a message of n bytes.
func noise(n int) []byte { return append(ramp(0xa1, 8), ramp(0xc0, n)...) }

var someSession = [16]byte(ramp(0x10, 16))

// Row: N15. Row: U8.
var goldenHellos = map[string]Hello{
	"hello session, all fields": {
		Kind: KindHello, Version: 1, Role: RoleSession, Caps: CapZstd | CapBatchAck, Agent: "peerlane/1",
		Limits: &Limits{MaxMessage: 4 << 20, MaxInFlight: 64, MessageWindow: 1 << 20, MaxStreams: 128, StreamWindow: 256 << 10},
	},
	"hello session, nothing optional": {Kind: KindHello, Version: 1, Role: RoleSession, Limits: &Limits{}},
	"hello stream":                    {Kind: KindHello, Version: 1, Role: RoleStream, SessionID: someSession, Name: "video"},
	"hello session that outlives its carrier": {
		Kind: KindHello, Version: 1, Role: RoleSession, Caps: CapZstd | CapBatchAck | CapResume, Agent: "peerlane/1",
		Limits: &Limits{MaxMessage: 65536, MaxInFlight: 1}, ResumeWindow: 60_000,
	},
	"hello resume": {
		Kind: KindHello, Version: 1, Role: RoleResume, Caps: CapZstd | CapBatchAck | CapResume, SessionID: someSession,
		Resume: &Resume{Received: 0x0102030405060708, Attempt: 7},
	},
	"hello resume, the carrier before is alive": {
		Kind: KindHello, Version: 1, Role: RoleResume, SessionID: someSession, Agent: "peerlane/1",
		Resume: &Resume{Attempt: 1, Live: true},
	},
	"hello resume, the largest numbers": {
		Kind: KindHello, Version: 1, Role: RoleResume, SessionID: someSession,
		Resume: &Resume{Received: math.MaxUint64, Attempt: math.MaxUint32, Live: true},
	},
	"hello resume with psk": {
		Kind: KindHello, Version: 1, Role: RoleResume, Caps: CapResume, SessionID: someSession,
		Resume: &Resume{Received: 4096, Attempt: 2}, Noise: noise(48),
	},
	"hello stream whose end is exchanged": {
		Kind: KindHello, Version: 1, Role: RoleStream, SessionID: someSession, Name: "video", Number: 3,
	},
	"hello session with psk": {
		Kind: KindHello, Version: 1, Role: RoleSession, Caps: CapZstd, Limits: &Limits{MaxMessage: 65536, MaxInFlight: 1},
		Noise: noise(48),
	},
	"hello stream with psk": {
		Kind: KindHello, Version: 1, Role: RoleStream, SessionID: someSession, Name: "日本", Agent: "x", Noise: noise(48),
	},
	"hello stream that outlives its carrier": {
		Kind: KindHello, Version: 1, Role: RoleStream, SessionID: someSession, Name: "video", Resumable: ResumableNew,
	},
	"hello stream, a further carrier, with psk": {
		Kind: KindHello, Version: 1, Role: RoleStream, SessionID: someSession, Name: "video", Resumable: ResumableAgain,
		Noise: noise(48),
	},
	"ack session": {
		Kind: KindAck, Version: 1, Caps: CapZstd, Limits: &Limits{0xffffffff, 1, 2, 3, 4}, SessionID: someSession,
		Agent: "peerlane/1",
	},
	"ack stream": {Kind: KindAck, Version: 1},
	"ack session that outlives its carrier": {
		Kind: KindAck, Version: 1, Caps: CapResume, Limits: &Limits{MaxMessage: 65536, MaxInFlight: 1}, SessionID: someSession,
		ResumeWindow: math.MaxUint32,
	},
	"ack resume": {
		Kind: KindAck, Version: 1, Caps: CapZstd | CapBatchAck | CapResume,
		Resume: &Resume{Received: 0x0102030405060708, Attempt: 7},
	},
	"ack resume, the carrier before is alive": {
		Kind: KindAck, Version: 1, Agent: "peerlane/1", Resume: &Resume{Attempt: 1, Live: true},
	},
	"ack resume with psk": {
		Kind: KindAck, Version: 1, Resume: &Resume{Received: 4096, Attempt: 2}, Noise: noise(80),
	},
	"ack session with psk": {
		Kind: KindAck, Version: 1, Limits: &Limits{MaxMessage: 65536, MaxInFlight: 1}, SessionID: someSession,
		Noise: noise(80),
	},
	"ack stream with psk": {Kind: KindAck, Version: 1, Noise: noise(80)},
	"refuse version": {
		Kind: KindRefuse, Version: 1, Failure: &Failure{Code: codes.Version, Text: "this peer speaks version 1"},
	},
	"refuse unavailable, with a hint": {
		Kind: KindRefuse, Version: 1, Failure: &Failure{Code: codes.Unavailable, RetryAfter: 1500e6}, Agent: "peerlane/1",
	},
}

func TestGoldenHellosBothWays(t *testing.T) {
	golden := vectors(t, "hello.hex")
	require.Equal(t, names(goldenHellos), names(golden), "table and testdata/hello.hex differ")
	for name, want := range goldenHellos {
		t.Run(name, func(t *testing.T) {
			got, err := parseHello(bytes.NewReader(golden[name]))
			require.NoError(t, err)
			require.Equal(t, &want, got)

			var b bytes.Buffer
			require.NoError(t, WriteHello(&b, AppendHello(nil, &want)))
			require.Equal(t, golden[name], b.Bytes())
		})
	}
}

func TestEveryTruncatedHelloIsAnUnexpectedEnd(t *testing.T) {
	for name, b := range vectors(t, "hello.hex") {
		_, err := ReadHello(bytes.NewReader(nil))
		require.Equal(t, io.EOF, err, "%s: the end before a hello is clean", name)
		for cut := 1; cut < len(b); cut++ {
			_, err := ReadHello(bytes.NewReader(b[:cut]))
			require.Equal(t, io.ErrUnexpectedEOF, err, "%s cut at %d", name, cut)
		}
	}
}

// A body that is cut between fields may be a smaller hello; one that is cut inside a field never is.
func TestTruncatedHelloBodyIsMalformedUnlessCutBetweenFields(t *testing.T) {
	for name, b := range vectors(t, "hello.hex") {
		body := b[2:]
		between := map[int]bool{2: true}
		for at := 2; at < len(body); {
			at += 3 + int(body[at+1])<<8 + int(body[at+2])
			between[at] = true
		}
		for cut := range body {
			h, _, err := ConsumeHello(body[:cut])
			if err != nil {
				require.ErrorIs(t, err, ErrMalformed, "%s cut at %d", name, cut)
				continue
			}
			require.True(t, between[cut], "%s cut at %d", name, cut)
			require.Equal(t, body[:cut], AppendHello(nil, h), "%s cut at %d", name, cut)
		}
	}
}

func TestHelloCoversAllBeforeTheNoiseField(t *testing.T) {
	for name, h := range goldenHellos {
		withNoise := AppendHello(nil, &h)
		h.Noise = nil
		want := AppendHello(nil, &h)
		_, covered, err := ConsumeHello(withNoise)
		require.NoError(t, err, name)
		require.Equal(t, want, covered, name)
	}
}

func TestReadHelloTakesNotAByteMoreThanTheHello(t *testing.T) {
	for name, b := range vectors(t, "hello.hex") {
		src := bytes.NewReader(append(append([]byte(nil), b...), "frames"...))
		_, err := ReadHello(iotest.HalfReader(src))
		require.NoError(t, err, name)
		rest, err := io.ReadAll(src)
		require.NoError(t, err, name)
		require.Equal(t, "frames", string(rest), name)
	}
}

func TestHelloOfTheCapPassesAndOneMoreByteIsRefused(t *testing.T) {
	h := Hello{Kind: KindAck, Version: 1, Noise: make([]byte, MaxHello-2-3)}
	body := AppendHello(nil, &h)
	require.Len(t, body, MaxHello)
	var b bytes.Buffer
	require.NoError(t, WriteHello(&b, body))
	got, err := ReadHello(&b)
	require.NoError(t, err)
	require.Equal(t, body, got)

	require.ErrorIs(t, WriteHello(&b, append(body, 0)), ErrTooLong)
	require.Zero(t, b.Len(), "a refused hello was written")
}

// askOnce gives its bytes, and fails the test when it is asked for more.
type askOnce struct {
	t *testing.T
	b []byte
}

func (a *askOnce) Read(p []byte) (int, error) {
	if len(a.b) == 0 {
		a.t.Errorf("asked for %d bytes behind a length that is over the cap", len(p))
	}
	n := copy(p, a.b)
	a.b = a.b[n:]
	return n, nil
}

// Row: D11. Row: U16.
func TestReadHelloReservesNothingForALengthOverTheCap(t *testing.T) {
	sizes := []uint16{MaxHello + 1, 65535}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		for _, n := range sizes {
			_, err := ReadHello(&askOnce{t, []byte{byte(n >> 8), byte(n)}})
			require.ErrorIs(t, err, ErrTooLong)
		}
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(100*len(sizes)*1024), "two hundred refusals")
}

// oneWrite counts writes.
type oneWrite struct{ writes int }

func (w *oneWrite) Write(p []byte) (int, error) {
	w.writes++
	return len(p), nil
}

func TestWriteHelloWritesOnceAndReturnsTheWritersError(t *testing.T) {
	w := new(oneWrite)
	require.NoError(t, WriteHello(w, AppendHello(nil, &Hello{Kind: KindAck, Version: 1})))
	require.Equal(t, 1, w.writes)

	broken := errors.New("broken")
	r, pw := io.Pipe()
	require.NoError(t, r.CloseWithError(broken))
	require.ErrorIs(t, WriteHello(pw, nil), broken)
}

func TestReadHelloReturnsTheReadersError(t *testing.T) {
	broken := errors.New("broken")
	for cut := range 5 {
		src := io.MultiReader(strings.NewReader("\x00\x04abcd"[:cut]), iotest.ErrReader(broken))
		_, err := ReadHello(src)
		require.ErrorIs(t, err, broken, "after %d bytes", cut)
	}
}

func TestKindNamesStandInTheSpecification(t *testing.T) {
	require.Equal(t, "HELLO", KindHello.String())
	require.Equal(t, "ACK", KindAck.String())
	require.Equal(t, "REFUSE", KindRefuse.String())
	require.Equal(t, "KIND 0x00", Kind(0).String())
	require.Equal(t, "KIND 0xff", Kind(255).String())
}
