package session

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

func TestAFifoGivesBackWhatWasWrittenAndHoldsLittleMore(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var r fifo
		var model []byte
		fill := byte(0)
		for range rapid.IntRange(1, 60).Draw(rt, "ops") {
			n := rapid.IntRange(0, 9000).Draw(rt, "n")
			if rapid.Bool().Draw(rt, "write") {
				p := make([]byte, n)
				for i := range p {
					fill++
					p[i] = fill
				}
				before, more := r.memory(), r.growth(n)
				r.write(p)
				if r.memory() != before+more {
					rt.Fatalf("%d bytes of memory after %d, want %d more", r.memory(), before, more)
				}
				model = append(model, p...)
			} else {
				p := make([]byte, n)
				got := r.read(p)
				if got != min(n, len(model)) || !bytes.Equal(p[:got], model[:got]) {
					rt.Fatalf("read %d of %d", got, len(model))
				}
				model = model[got:]
			}
			if r.len() != len(model) {
				rt.Fatalf("%d bytes, want %d", r.len(), len(model))
			}
			if r.memory() > r.len()+bufferCost {
				rt.Fatalf("%d bytes in %d of memory", r.len(), r.memory())
			}
		}
		r.drop()
		if r.len() != 0 || r.memory() != 0 {
			rt.Fatalf("drop keeps memory")
		}
	})
}
