package fair

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPace(t *testing.T) {
	var p Pace
	p.Add(100)
	_, over := p.Most(9*time.Second, 10*time.Second)
	require.False(t, over)
	p.Add(1)
	most, over := p.Most(10*time.Second, 10*time.Second)
	require.True(t, over)
	require.Equal(t, 101*paceParts, most)
	p.Add(1)
	_, over = p.Most(19*time.Second, 10*time.Second)
	require.False(t, over)
	most, over = p.Most(20*time.Second, 10*time.Second)
	require.True(t, over)
	require.Equal(t, paceParts, most)
}
