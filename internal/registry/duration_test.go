package registry

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDurationsAreMilliseconds(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0", time.Nanosecond: "0.000001", 1500 * time.Microsecond: "1.5", time.Hour: "3600000", -time.Second: "-1000"} {
		b, err := json.Marshal(Duration(d))
		require.NoError(t, err)
		require.Equal(t, want, string(b))
		var back Duration
		require.NoError(t, json.Unmarshal(b, &back))
		require.Equal(t, d.String(), back.String())
	}
	var d Duration
	require.Error(t, json.Unmarshal([]byte(`"1s"`), &d))
}
