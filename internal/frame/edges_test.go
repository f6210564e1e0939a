package frame

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/peerlane/peerlane/internal/test/edges"
)

// What consumes bytes, or checks them, panics at none. AppendHeader, AppendStart and AppendHello say that they panic at what cannot be
// sent: that is the caller's mistake, and no caller makes it.
func TestNothingThatConsumesPanics(t *testing.T) {
	given := edges.As[io.Writer](edges.As[io.Reader](edges.Of(), bytes.NewReader(nil), bytes.NewReader([]byte{0, 1, 2})), io.Discard)
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 9))
		for name, fn := range map[string]any{
			"ConsumeHeader": ConsumeHeader, "ConsumeHello": ConsumeHello, "ConsumeStart": ConsumeStart, "ConsumeFailure": ConsumeFailure,
			"ConsumeCredit": ConsumeCredit, "CutText": CutText, "Compress": Compress, "AppendFailure": AppendFailure, "FailureSize": FailureSize,
			"AppendCredit": AppendCredit,
		} {
			edges.Func(given, rng, 3, name, fn)
		}
	}
	for _, raw := range []int{-1, 0, 1, 1 << 20} {
		_, _ = Decompress(nil, raw)
		_, _ = Decompress([]byte{0}, raw)
	}
}
