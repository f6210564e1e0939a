package frame

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/zstd"
)

// Each target decodes, encodes again and compares. The seeds are the golden vectors, the refused ones included.

// seeds calls add with the bytes of every vector in the files.
func seeds(f *testing.F, add func(b []byte), files ...string) {
	f.Helper()
	for _, file := range files {
		for b := range maps.Values(vectors(f, file)) {
			add(b)
		}
	}
}

// requireCoded fails unless err is one of the package's decoding errors.
func requireCoded(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLong) && !errors.Is(err, ErrCritical) {
		t.Fatalf("error of no kind: %v", err)
	}
}

func FuzzHeader(f *testing.F) {
	seeds(f, func(b []byte) { f.Add(b) }, "frames.hex", "refused.hex", "skipped.hex")
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := ConsumeHeader(b)
		if err != nil {
			requireCoded(t, err)
			require.Equal(t, HeaderSize, n)
			return
		}
		if n == 0 {
			require.Less(t, len(b), HeaderSize)
			return
		}
		require.Equal(t, b[:HeaderSize], AppendHeader(nil, h))
	})
}

func FuzzHello(f *testing.F) {
	seeds(f, func(b []byte) { f.Add(b[2:]) }, "hello.hex")
	for b := range maps.Values(vectors(f, "refused.hex")) {
		f.Add(b[min(2, len(b)):])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, covered, err := ConsumeHello(b)
		if err != nil {
			requireCoded(t, err)
			return
		}
		require.True(t, bytes.HasPrefix(b, covered))
		again := AppendHello(nil, h)
		h2, covered2, err := ConsumeHello(again)
		require.NoError(t, err)
		require.Equal(t, h, h2)
		if len(again) == len(b) { // no unknown field was skipped, and none said nothing: it is the same hello
			require.Equal(t, b, again)
			require.Equal(t, covered, covered2)
		}
		if h.Noise != nil {
			require.Equal(t, h.Noise, b[len(covered)+3:], "noise is not the last field")
		}
		var whole bytes.Buffer
		require.NoError(t, WriteHello(&whole, again[:min(len(again), MaxHello)]))
		body, err := ReadHello(&whole)
		require.NoError(t, err)
		require.Equal(t, again[:len(body)], body)
	})
}

func FuzzStart(f *testing.F) {
	seeds(f, func(b []byte) {
		if len(b) > HeaderSize {
			f.Add(b[3], b[4], b[HeaderSize:])
		}
	}, "frames.hex", "refused.hex")
	types := []Type{TypeRequest, TypeResponse, TypeMessage}
	f.Fuzz(func(t *testing.T, typ, flags byte, p []byte) {
		kind, fl := types[int(typ)%len(types)], Flags(flags)&(FlagCompressed|FlagObject)
		s, body, err := ConsumeStart(p, kind, fl, nil)
		if err != nil {
			requireCoded(t, err)
			return
		}
		require.LessOrEqual(t, len(body), s.Total)
		require.LessOrEqual(t, max(s.Total, s.Raw), MaxTotal)
		require.Len(t, p, StartSize(kind, fl, &s)+len(body))
		require.Equal(t, p, append(AppendStart(nil, kind, fl, s), body...))
	})
}

func FuzzFailure(f *testing.F) {
	seeds(f, func(b []byte) {
		if len(b) > HeaderSize {
			f.Add(b[HeaderSize:])
		}
	}, "frames.hex", "refused.hex")
	f.Fuzz(func(t *testing.T, p []byte) {
		require.LessOrEqual(t, len(CutText(string(p))), MaxText)
		got, err := ConsumeFailure(p)
		if err != nil {
			requireCoded(t, err)
			return
		}
		require.NotEmpty(t, got.Code.String())
		require.Len(t, p, FailureSize(got))
		require.Equal(t, p, AppendFailure(nil, got))
	})
}

// A credit and an offset are written as they were read.
func FuzzNumbers(f *testing.F) {
	seeds(f, func(b []byte) {
		if len(b) > HeaderSize {
			f.Add(b[HeaderSize:])
		}
	}, "frames.hex", "refused.hex")
	f.Fuzz(func(t *testing.T, p []byte) {
		if n, err := ConsumeCredit(p); err == nil {
			require.Equal(t, p, AppendCredit(nil, n))
			require.NotZero(t, n)
		} else {
			requireCoded(t, err)
		}
		if n, err := ConsumeOffset(p); err == nil {
			require.Equal(t, p, AppendOffset(nil, n))
		} else {
			requireCoded(t, err)
		}
	})
}

// The Reader must give the same frames and the same end however its source cuts the bytes.
func FuzzReader(f *testing.F) {
	seeds(f, func(b []byte) { f.Add(b, uint16(1), uint16(7)) }, "frames.hex", "refused.hex", "skipped.hex")
	f.Add(parts(nil, pattern(2*MaxPayload)), uint16(4096), uint16(13))
	f.Fuzz(func(t *testing.T, b []byte, one, two uint16) {
		arrived := 0
		r := NewReader(&inChunks{src: b, sizes: []int{int(one) + 1, int(two) + 1}}, func(n int) { arrived += n })
		rest := b
		for {
			h, payload, err := r.Next()
			requireBounded(t, r, arrived, "fuzz")
			want, n, wantErr := nextKnown(rest)
			if wantErr != nil {
				require.Equal(t, wantErr.Error(), err.Error())
				return
			}
			require.NoError(t, err)
			require.Equal(t, want, h)
			require.Equal(t, rest[n-h.Length:n], payload)
			rest = rest[n:]
			if p, err := parse(h, payload); err == nil {
				require.Equal(t, append(AppendHeader(nil, h), payload...), p.append(nil))
			} else {
				requireCoded(t, err)
			}
		}
	})
}

// nextKnown is Reader.Next without a source: the first frame of b that version 1 knows, and where it ends.
func nextKnown(b []byte) (h Header, end int, err error) {
	for {
		h, n, err := ConsumeHeader(b[end:])
		switch {
		case err != nil:
			return h, 0, err
		case n == 0 && end == len(b):
			return h, 0, io.EOF
		case n == 0 || len(b)-end-n < h.Length:
			return h, 0, io.ErrUnexpectedEOF
		}
		end += n + h.Length
		if h.Type.Known() {
			return h, end, nil
		}
	}
}

func FuzzDecompress(f *testing.F) {
	const most = 1 << 20
	f.Add(packedA, uint32(600))
	f.Add(honest, uint32(bombRaw))
	for _, n := range []int{0, 1, 512, 4096, MaxPayload} {
		f.Add(zstd.Append(nil, text(n)), uint32(n))
	}
	for b := range maps.Values(refusedUnseen) {
		f.Add(b[:min(len(b), 4096)], uint32(bombRaw))
	}
	for b := range maps.Values(bombs(600)) {
		f.Add(b, uint32(600))
	}
	f.Fuzz(func(t *testing.T, b []byte, size uint32) {
		raw := int(size % (most + 1))
		out, err := Decompress(b, raw)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			require.Nil(t, out)
			out = b // then b is a body to compress
		} else {
			require.Len(t, out, raw)
		}
		small, ok := Compress(out)
		if !ok {
			return
		}
		require.LessOrEqual(t, len(small), len(out)-len(out)/8)
		again, err := Decompress(small, len(out))
		require.NoError(t, err)
		require.Equal(t, out, again)
	})
}
