package registry

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestARingKeepsTheLastEvents(t *testing.T) {
	var r Ring
	require.Empty(t, r.All())
	for n := 1; n <= 3*RingSize; n++ {
		r.Add(Event{Peer: strconv.Itoa(n)})
		all := r.All()
		require.Len(t, all, min(n, RingSize))
		for i, e := range all {
			require.Equal(t, strconv.Itoa(n-len(all)+i+1), e.Peer)
		}
	}
}
