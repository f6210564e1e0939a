package session

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

type waiter struct{ gone bool }

func (w *waiter) gaveUp() bool { return w.gone }

func TestALineServesThoseThatStayInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var l line[*waiter]
		var model []*waiter
		for range rapid.IntRange(1, 200).Draw(rt, "ops") {
			switch op := rapid.IntRange(0, 2).Draw(rt, "op"); {
			case op == 0 || len(model) == 0:
				w := new(waiter)
				l.push(w)
				model = append(model, w)
			case op == 1:
				if got := l.pop(); got != model[0] {
					rt.Fatalf("pop out of order")
				}
				model = model[1:]
			default:
				i := rapid.IntRange(0, len(model)-1).Draw(rt, "i")
				model[i].gone = true
				l.leave()
				model = append(model[:i:i], model[i+1:]...)
			}
			if l.len() != len(model) || l.items.n > 2*len(model)+1 {
				rt.Fatalf("%d wait, %d stand in line, model %d", l.len(), l.items.n, len(model))
			}
		}
	})
}

func TestAQueueIsFirstInFirstOut(t *testing.T) {
	var q queue[int]
	next, want := 0, 0
	for round := range 50 {
		for range round {
			q.push(next)
			next++
		}
		for range round / 2 {
			require.Equal(t, want, q.at(0))
			require.Equal(t, want, *q.peek())
			require.Equal(t, want, q.pop())
			want++
		}
		require.Equal(t, next-want, q.len())
	}
}
