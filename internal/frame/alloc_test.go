package frame

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
)

// forever gives the same bytes over and over.
type forever struct {
	src []byte
	at  int
}

func (f *forever) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		c := copy(p[n:], f.src[f.at:])
		n += c
		f.at = (f.at + c) % len(f.src)
	}
	return n, nil
}

// table is an intern func that knows its names: a lookup by converted bytes does not allocate.
func table(names ...string) func([]byte) string {
	known := map[string]string{}
	for _, n := range names {
		known[n] = n
	}
	return func(b []byte) string {
		if s, ok := known[string(b)]; ok {
			return s
		}
		return string(b)
	}
}

// A frame costs no allocation either way. Row: D12.
func TestWritingAFrameIntoAReusedBufferAllocatesNothing(t *testing.T) {
	b := make([]byte, 0, 1024)
	s := Start{Total: 64, Raw: 128, Timeout: 1500e6, Link: "echo", Codec: "json"}
	f := Failure{Code: codes.Unavailable, RetryAfter: 1e9, Text: "full"}
	for name, write := range map[string]func(){
		"header": func() { b = AppendHeader(b[:0], Header{Length: 64, Type: TypeStreamData, ID: 9}) },
		"request": func() {
			h := Header{Length: 64 + StartSize(TypeRequest, 3, &s), Type: TypeRequest, Flags: 3, ID: 9}
			b = AppendStart(AppendHeader(b[:0], h), TypeRequest, 3, s)
		},
		"failure": func() { b = AppendFailure(AppendHeader(b[:0], Header{Length: FailureSize(f), Type: TypeError}), f) },
		"credit":  func() { b = AppendCredit(AppendHeader(b[:0], Header{Length: 4, Type: TypeStreamCredit}), 65536) },
	} {
		require.Zero(t, testing.AllocsPerRun(1000, write), name)
	}
}

// Row: D12.
func TestReadingFramesInSteadyStateAllocatesNothing(t *testing.T) {
	intern := table("echo", "a/b", "json", "")
	var all []byte
	for _, name := range names(goldenFrames) {
		all = goldenFrames[name].append(all)
	}
	all = parts(all, pattern(2*MaxPayload))
	r := NewReader(&forever{src: all}, func(int) {})
	read := func() {
		h, payload, err := r.Next()
		if err != nil {
			panic(err)
		}
		switch h.Type {
		case TypeRequest, TypeResponse, TypeMessage:
			_, _, err = ConsumeStart(payload, h.Type, h.Flags, intern)
		case TypeStreamCredit, TypeSessionCredit, TypeSessionReturn:
			_, err = ConsumeCredit(payload)
		}
		if err != nil {
			panic(err)
		}
	}
	for range 10_000 { // until the buffer has its size
		read()
	}
	require.Zero(t, testing.AllocsPerRun(10_000, read))
}

func TestConsumeHeaderAllocatesNothing(t *testing.T) {
	b := AppendHeader(nil, Header{Length: 64, Type: TypeStreamData, ID: 9})
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, n, err := ConsumeHeader(b); n == 0 || err != nil {
			panic("no header")
		}
	}))
}

// A failure's text is copied, because it outlives the buffer; that is the one allocation.
func TestConsumeFailureAllocatesItsTextOnly(t *testing.T) {
	b := AppendFailure(nil, Failure{Code: codes.Application, Text: "one text that is longer than thirty-two bytes"})
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() {
		if _, err := ConsumeFailure(b); err != nil {
			panic(err)
		}
	}), 1.0)
}
