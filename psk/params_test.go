package psk

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Row: N2
func TestParamsDefaultsAreRFC9106SecondOption(t *testing.T) {
	want := Params{Salt: []byte(domainSalt), Time: 3, MemoryKiB: 64 << 10, Threads: 4}
	var none *Params
	require.Equal(t, want, none.withDefaults())
	require.Equal(t, want, (&Params{}).withDefaults())
	require.Len(t, domainSalt, 16)
}

// Claim: psk.ErrInvalid
func TestParamsErrorsNameTheField(t *testing.T) {
	for _, test := range []struct {
		field  string
		params Params
	}{
		{"Params.Salt", Params{Salt: make([]byte, minSalt-1)}},
		{"Params.Salt", Params{Salt: make([]byte, maxSalt+1)}},
		{"Params.Time", Params{Time: maxTime + 1}},
		{"Params.MemoryKiB", Params{MemoryKiB: 31}},
		{"Params.MemoryKiB", Params{MemoryKiB: maxMemoryKiB + 1}},
		{"Params.MemoryKiB", Params{MemoryKiB: 8*255 - 1, Threads: 255}},
	} {
		_, err := Derive([]byte("long enough"), &test.params)
		require.ErrorIs(t, err, ErrInvalid, "%+v", test.params)
		require.ErrorContains(t, err, test.field, "%+v", test.params)
	}
}

// Claim: psk.Params.MemoryKiB, psk.Params.Salt, psk.Params.Threads, psk.Params.Time
func TestEveryParamChangesTheKey(t *testing.T) {
	base := Params{Salt: []byte("a salt of its own"), Time: 1, MemoryKiB: 16, Threads: 1}
	salt, time, memory, threads := base, base, base, base
	salt.Salt = []byte("another salt")
	time.Time = 2
	memory.MemoryKiB = 24
	threads.Threads = 2
	seen := make(map[KeyID]Params)
	for _, p := range []Params{base, salt, time, memory, threads} {
		key, err := Derive([]byte("long enough"), &p)
		require.NoError(t, err, "%+v", p)
		require.NotContains(t, seen, key.ID(), "%+v", p)
		seen[key.ID()] = p
	}
}
