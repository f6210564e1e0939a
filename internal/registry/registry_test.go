package registry

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatWasAddedIsListedUntilItIsRemoved(t *testing.T) {
	var r Registry[*int]
	require.Empty(t, r.All())
	a, b := new(int), new(int)
	r.Add(a)
	r.Add(b)
	r.Add(b)
	require.ElementsMatch(t, []*int{a, b}, r.All())
	r.Remove(a)
	r.Remove(a)
	require.Equal(t, []*int{b}, r.All())
}

func TestANilRegistryListsNothing(t *testing.T) {
	var r *Registry[int]
	r.Add(1)
	r.Remove(1)
	require.Empty(t, r.All())
}

func TestARegistryIsSafeForConcurrentUse(t *testing.T) {
	var r Registry[int]
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 100 {
				r.Add(i)
				_ = r.All()
				r.Remove(i)
			}
		})
	}
	all.Wait()
	require.Empty(t, r.All())
}
