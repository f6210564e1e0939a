package handler

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

type owner struct {
	name     string
	exempted [Kinds]int
}

func (o *owner) Exempt(k Kind) { o.exempted[k]++ }
func (o *owner) Is(x any) bool { return o == x }

func TestHereIsTheHandlerThatRuns(t *testing.T) {
	require.Nil(t, Here())
	require.False(t, Here().Of(t))
	const many = 600 // numbers of four digits
	var all, entered sync.WaitGroup
	entered.Add(many)
	owners := make([]*owner, many)
	for i := range many {
		all.Go(func() {
			owners[i] = &owner{name: fmt.Sprint(i)}
			Run(owners[i], Stream, func() {
				entered.Done()
				entered.Wait()
				if c := Here(); !c.Of(owners[i]) || c.Of(&owner{}) {
					t.Errorf("%d is not taken for itself", i)
				}
				deep(i, func() {
					Here().Exempt()
					Here().Exempt()
				})
			})
		})
	}
	all.Wait()
	require.Nil(t, Here())
	for _, o := range owners {
		require.Equal(t, [Kinds]int{Stream: 1}, o.exempted)
	}
}

// deep calls fn far down the stack.
func deep(n int, fn func()) {
	if n == 0 {
		fn()
		return
	}
	deep(n-1, fn)
}

func TestAHandlerInAHandlerIsTheInnerOne(t *testing.T) {
	outer, inner := new(owner), &owner{name: "inner"}
	Run(outer, Call, func() {
		Run(inner, Conn, func() { require.True(t, Here().Of(inner)) })
		require.True(t, Here().Of(outer))
	})
}

// A panic and runtime.Goexit pass through Run, and leave nothing behind.
func TestRunEndsWithItsHandler(t *testing.T) {
	require.Panics(t, func() { Run(new(owner), Call, func() { panic("x") }) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		Run(new(owner), Call, runtime.Goexit)
	}()
	<-done
	for i := range running {
		for _, c := range running[i].all {
			require.Nil(t, c.owner)
		}
		require.Len(t, running[i].free, len(running[i].all))
	}
}

func BenchmarkRun(b *testing.B) {
	o := new(owner)
	b.ReportAllocs()
	for b.Loop() {
		Run(o, Call, func() {})
	}
}

func BenchmarkRunOfMany(b *testing.B) {
	o := new(owner)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			Run(o, Call, func() {})
		}
	})
}

func BenchmarkHere(b *testing.B) {
	Run(new(owner), Call, func() {
		for b.Loop() {
			Here()
		}
	})
}

// A handler that finds all lists in use waits for one.
func TestAHandlerWaitsForAList(t *testing.T) {
	for i := range running {
		running[i].mu.Lock()
	}
	ran := make(chan struct{})
	go Run(new(owner), Call, func() { close(ran) })
	stacks := make([]byte, 1<<20)
	for !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("handler.lockOne")) {
		runtime.Gosched()
	}
	for range 100 { // until it has tried them all
		runtime.Gosched()
	}
	select {
	case <-ran:
		t.Fatal("it has entered a list that is in use")
	default:
	}
	for i := range running {
		running[i].mu.Unlock()
	}
	<-ran
}
