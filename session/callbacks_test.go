package session_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// calls records names in the order of the calls.
type calls struct {
	mu  sync.Mutex
	all []string
}

func (c *calls) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, name)
}

func (c *calls) get() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all)
}

// Row: G14
func TestCloseCallbacksRunOnceInTheOrderAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, nil)
		var got calls
		add := func(handler, key any, name string) bool {
			return p.Alice.AddCloseCallback(handler, key, func() { got.add(name) })
		}
		require.True(t, add("h", 1, "replaced"))
		require.True(t, p.Alice.AddCloseCallback("h", "panics", func() { panic("boom") }))
		require.True(t, add("h", 2, "second"))
		require.True(t, p.Alice.AddCloseCallback("h", "exits", runtime.Goexit))
		require.True(t, add("other", 1, "third"))
		require.True(t, add(nil, nil, "fourth"))
		require.True(t, add("h", 3, "removed"))
		require.True(t, add("h", 1, "first"), "the same two names take the place of the first function")
		p.Alice.RemoveCloseCallback("h", 3)
		p.Alice.RemoveCloseCallback("h", 3)
		p.Alice.RemoveCloseCallback("nobody", 3)
		require.True(t, p.Alice.AddCloseCallback("h", "closes", func() { // the session has ended
			_ = p.Alice.Close()
			got.add(fmt.Sprint(add("late", 1, "never")))
		}))
		require.NoError(t, p.Alice.Close())
		synctest.Wait()
		require.Equal(t, []string{"first", "second", "third", "fourth", "false"}, got.get())
		require.False(t, add("late", 2, "never"))
		p.Alice.RemoveCloseCallback("h", 1)
		time.Sleep(time.Minute)
		require.Len(t, got.get(), 5)
	})
}

// A name that no map takes is refused, also when it is deep in a value, and so is a nil function.
func TestNamesThatCannotBeComparedAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, nil)
		for _, bad := range []any{[]int{1}, map[string]int{}, func() {}, struct{ v any }{[]int{1}}, [1]any{func() {}}} {
			require.False(t, p.Alice.AddCloseCallback(bad, 1, func() {}))
			require.False(t, p.Alice.AddCloseCallback(1, bad, func() {}))
			p.Alice.RemoveCloseCallback(bad, 1)
			p.Alice.RemoveCloseCallback(1, bad)
			require.False(t, p.Alice.SetAttribute(bad, 1))
			require.Nil(t, p.Alice.Attribute(bad))
			p.Alice.RemoveAttribute(bad)
		}
		require.False(t, p.Alice.AddCloseCallback(1, 1, nil))
	})
}

// Row: G14
func TestCloseCallbacksAreAddedAndRemovedAtTheSameTime(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			p := peerlanetest.NewSessions(t, nil)
			var running, taken, ran atomic.Int64
			var all sync.WaitGroup
			for g := range 8 {
				random := rand.New(rand.NewPCG(seed, uint64(g)))
				all.Go(func() {
					for i := range 200 {
						switch key := random.IntN(20); random.IntN(4) {
						case 0:
							p.Alice.RemoveCloseCallback(g, key)
						case 1: // its key is its own: it is neither replaced nor removed
							if p.Alice.AddCloseCallback(g, fmt.Sprint("own", i), func() {
								if running.Add(1) > 1 {
									t.Error("two at the same time")
								}
								ran.Add(1)
								running.Add(-1)
							}) {
								taken.Add(1)
							}
						default:
							p.Alice.AddCloseCallback(g, key, func() {
								if running.Add(1) > 1 {
									t.Error("two at the same time")
								}
								running.Add(-1)
							})
						}
						if g == 0 && i == 100 {
							go func() { _ = p.Alice.Close() }()
						}
						runtime.Gosched()
					}
				})
			}
			all.Wait()
			_ = p.Alice.Close()
			synctest.Wait()
			require.Equal(t, taken.Load(), ran.Load(), "seed %d: what is taken runs, once", seed)
		})
	}
}

// Row: G13
func TestAttributesAreKeptUntilTheSessionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, nil)
		type key struct{}
		require.Nil(t, p.Alice.Attribute(key{}))
		require.True(t, p.Alice.SetAttribute(key{}, 1))
		require.True(t, p.Alice.SetAttribute(key{}, 2))
		require.True(t, p.Alice.SetAttribute("gone", 3))
		require.True(t, p.Alice.SetAttribute("nil", nil))
		p.Alice.RemoveAttribute("gone")
		p.Alice.RemoveAttribute("gone")
		require.Equal(t, 2, p.Alice.Attribute(key{}))
		require.Nil(t, p.Alice.Attribute("gone"))
		require.Nil(t, p.Bob.Attribute(key{}), "each side has its own")
		var atEnd any
		var set bool
		p.Alice.AddCloseCallback(1, 1, func() { atEnd, set = p.Alice.Attribute(key{}), p.Alice.SetAttribute(key{}, 4) })
		require.NoError(t, p.Alice.Close())
		synctest.Wait()
		require.Equal(t, 2, atEnd, "the functions at the end still find it")
		require.False(t, set)
		require.Nil(t, p.Alice.Attribute(key{}))
		require.False(t, p.Alice.SetAttribute(key{}, 5))
		p.Alice.RemoveAttribute(key{})

		alone, _ := p.Dial(t)
		require.True(t, alone.SetAttribute(1, 1))
		alone.Abort()
		require.Nil(t, alone.Attribute(1))
	})
}

func TestAttributesAreSafeForConcurrentUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: session.Config{ResumeWindow: -1}})
		var all sync.WaitGroup
		for g := range 8 {
			all.Go(func() {
				for i := range 200 {
					p.Alice.SetAttribute(i%5, g)
					_ = p.Alice.Attribute(i % 5)
					p.Alice.RemoveAttribute(i % 7)
					if g == 0 && i == 100 {
						go func() { _ = p.Alice.Close() }()
					}
				}
			})
		}
		all.Wait()
		_ = p.Alice.Close()
		require.Nil(t, p.Alice.Attribute(1))
	})
}
