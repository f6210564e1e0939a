// Package traffic gives tests random bytes, a side that writes them and one that checks what it reads.
package traffic

import (
	"bytes"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Bytes returns n bytes that follow from the seed.
func Bytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = of(seed).Read(b)
	return b
}

func of(seed uint64) *rand.ChaCha8 {
	return rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
}

// Write writes the bytes of the seed to w until stopped, in Writes of random sizes at random times. It announces how many there are before
// it writes the last of them.
func Write(t *testing.T, w io.Writer, seed uint64, stopped *atomic.Bool, announce func(int)) {
	bytes, sizes := of(seed), rand.New(rand.NewPCG(seed, 2))
	for total, last := 0, false; !last; {
		p := make([]byte, 1+sizes.IntN(1<<sizes.IntN(16)))
		if last = stopped.Load(); last {
			announce(total + len(p))
		}
		_, _ = bytes.Read(p)
		n, err := w.Write(p)
		require.NoError(t, err)
		require.Equal(t, len(p), n)
		total += n
		time.Sleep(time.Duration(sizes.IntN(1 << sizes.IntN(24))))
	}
}

// Read reads what Write writes until the end of r, or until the total once that is known. It fails at the first byte that is another, and
// returns how many there were.
func Read(t *testing.T, r io.Reader, seed uint64, total func() (int, bool)) int {
	want, sizes := of(seed), rand.New(rand.NewPCG(seed, 3))
	p, q := make([]byte, 64<<10), make([]byte, 64<<10)
	for got := 0; ; {
		if n, known := total(); known && got == n {
			return got
		}
		n, err := r.Read(p[:1+sizes.IntN(len(p))])
		_, _ = want.Read(q[:n])
		require.True(t, bytes.Equal(q[:n], p[:n]), "at %d", got)
		got += n
		if err == io.EOF {
			return got
		}
		require.NoError(t, err)
	}
}
