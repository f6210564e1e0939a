package defaults

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSetSetsOnlyWhatIsZero(t *testing.T) {
	d, n := time.Duration(0), 3
	Set(&d, Close)
	Set(&n, MaxMessage)
	require.Equal(t, Close, d)
	require.Equal(t, 3, n)
}
