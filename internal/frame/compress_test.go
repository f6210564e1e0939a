package frame

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/zstd"
)

// random returns n bytes that do not compress: the same for the same seed.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b) // never fails
	return b
}

// text returns n bytes that compress as prose does.
func text(n int) []byte {
	const words = "a peer is addressed by its key and never by host and port; between two peers there is one session. "
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	for b.Len() < n {
		at := r.IntN(len(words) - 12)
		b.WriteString(words[at : at+4+r.IntN(8)])
	}
	return []byte(b.String()[:n])
}

// Row: P21. Row: D13.
func TestWhatIsCompressedSavesAnEighthAndComesBack(t *testing.T) {
	for _, n := range sizeGrid(2 * MaxPayload) {
		for kind, body := range map[string][]byte{"zeros": make([]byte, n), "text": text(n), "random": random(1, n)} {
			before := bytes.Clone(body)
			out, ok := Compress(body)
			require.Equal(t, before, body, "%d bytes of %s were changed", n, kind)
			require.Equal(t, n >= 512 && kind != "random", ok, "%d bytes of %s", n, kind)
			if !ok {
				continue
			}
			require.LessOrEqual(t, len(out), n-n/8, "%d bytes of %s", n, kind)
			raw, err := Decompress(out, n)
			require.NoError(t, err, "%d bytes of %s", n, kind)
			require.Equal(t, body, raw, "%d bytes of %s", n, kind)
			require.Equal(t, n, cap(raw), "%d bytes of %s: room behind the body is not the caller's", n, kind)
		}
	}
}

// From all zeros to all random in small steps: compressed exactly where it saves an eighth.
func TestCompressionIsUsedUpToTheBorderAndNotPastIt(t *testing.T) {
	const n = 4096
	lastUsed := -1
	noise := random(2, n)
	for r := 0; r <= n; r += 8 {
		body := make([]byte, n)
		copy(body, noise[:r])
		whole := zstd.Append(nil, body)
		_, ok := Compress(body)
		require.Equal(t, len(whole) <= n-n/8, ok, "%d random bytes of %d compress to %d", r, n, len(whole))
		if ok {
			lastUsed = r
		}
	}
	require.Greater(t, lastUsed, n*3/4, "the encoder gives up early")
	require.LessOrEqual(t, lastUsed, n-n/8)
}

func TestLargeBodyWithAMiddleThatDoesNotShrinkIsSentAsItIs(t *testing.T) {
	body := make([]byte, 1<<20)
	copy(body[len(body)/2:], random(3, sampleSize))
	require.False(t, Promising(body))
	body = make([]byte, 1<<20)
	copy(body, random(3, len(body)/4))
	require.True(t, Promising(body), "the middle is zeros")
	out, ok := Compress(body)
	require.True(t, ok)
	require.Less(t, len(out), len(body)/3)
}

// The handmade frame of the golden vectors, so that the format is RFC 8878's and not this encoder's.
func TestDecompressTakesAnyEncodersFrame(t *testing.T) {
	got, err := Decompress(packedA, 600)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("a", 600), string(got))

	empty := zstdFrame{content: 0}.with(rawBlock(nil, lastBlock))
	got, err = Decompress(empty, 0)
	require.NoError(t, err)
	require.Empty(t, got)
	_, err = Decompress(zstdFrame{undeclared: true}.with(rawBlock(nil, lastBlock)), 0)
	require.ErrorIs(t, err, ErrMalformed, "no content size is not a content size of 0")
}

func TestManyGoroutinesMayCompressAtOnce(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := 512; n < 40_000; n += 3001 {
				body := append(text(n), byte(i))
				out, ok := Compress(body)
				got, err := Decompress(out, len(body))
				if !ok || err != nil || !bytes.Equal(body, got) {
					t.Errorf("goroutine %d, %d bytes: %v, %v", i, n, ok, err)
				}
			}
		})
	}
	wg.Wait()
}
