package staging

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

func TestAStagingIsEmptyUntilSomethingHasCome(t *testing.T) {
	const id = "0123456789abcdef"
	entries := []manifest.Entry{
		{ID: 0, Kind: manifest.KindFile, Perm: 0o644, Path: "a", Size: 1000}, {ID: 1, Kind: manifest.KindFile, Perm: 0o644, Path: "b", Size: 1000},
	}
	for name, come := range map[string]func(*Staging) error{
		"a piece": func(s *Staging) error { return s.WriteAt(0, []byte{1}, 0) },
		"a whole file": func(s *Staging) error {
			return s.WriteFile(0, content(0, 1000))
		},
		"a name": func(s *Staging) error {
			if err := s.WriteFile(0, content(0, 1000)); err != nil {
				return err
			}
			return publish(s, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTestDisk(1, false)
			s, err := Create(d, id, entries, nil)
			require.NoError(t, err)
			require.True(t, s.IsEmpty())
			require.NoError(t, s.Adopt(1))
			require.NoError(t, s.Sync())
			require.True(t, s.IsEmpty(), "what was there has not come")
			require.NoError(t, come(s))
			require.False(t, s.IsEmpty())
			require.NoError(t, s.Sync())
			require.False(t, s.IsEmpty())
			require.NoError(t, s.Close())
		})
	}
}
