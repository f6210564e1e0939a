package staging

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

func TestLayersAndRoots(t *testing.T) {
	d := newTestDisk(1, false)
	o := &Options{Rules: testRules}
	entries := []manifest.Entry{{ID: 1, Kind: manifest.KindFile, Path: "a", Size: 8192, Perm: 0o644}}
	s, err := Create(d, testID, entries, o)
	require.NoError(t, err)
	cvs := content(9, 8*cvSize)
	for _, err := range []error{
		s.SetLayer(2, 0, cvs), s.SetLayer(1, 0, cvs[:31]), s.SetLayer(1, -1, cvs), s.SetLayer(1, 2, cvs), s.SetLayer(1, math.MaxInt, cvs),
		s.SetRoot(2, [32]byte{}),
	} {
		requireIs(t, fault.CodeProtocol, err)
	}
	layer, err := s.Layer(1)
	require.NoError(t, err)
	require.Nil(t, layer)
	require.NoError(t, s.SetLayer(1, 4, cvs[4*cvSize:6*cvSize]))
	require.NoError(t, s.SetRoot(1, [32]byte{7}))
	requireIs(t, fault.CodeProtocol, s.SetRoot(1, [32]byte{8}))
	require.NoError(t, s.Sync())
	require.NoError(t, s.SetLayer(1, 3, cvs[3*cvSize:5*cvSize]), "what overlaps and is the same")
	requireIs(t, fault.CodeProtocol, s.SetLayer(1, 5, cvs[:cvSize]))
	require.NoError(t, s.Close())
	s, err = Open(d, testID, o)
	require.NoError(t, err)
	layer, err = s.Layer(1)
	require.NoError(t, err)
	want := append(make([]byte, 4*cvSize), cvs[4*cvSize:6*cvSize]...)
	require.Equal(t, want, layer, "what was synced")
	sum, found := s.Root(1)
	require.True(t, found)
	require.Equal(t, [32]byte{7}, sum)
	require.NoError(t, s.Reset(1))
	layer, _ = s.Layer(1)
	_, found = s.Root(1)
	require.True(t, layer == nil && !found)
	require.NoError(t, s.SetLayer(1, 0, cvs))
	require.NoError(t, s.Sync())
	require.NoError(t, s.Close())
	d.names[".xfer-"+testID+"/1.layer"].data = cvs[:100]
	s, err = Open(d, testID, o)
	require.NoError(t, err)
	layer, _ = s.Layer(1)
	require.Empty(t, layer, "what the file has no more is not had")
	require.NoError(t, s.SetLayer(1, 0, cvs))
	require.NoError(t, s.WriteAt(1, make([]byte, 8192), 0))
	require.NoError(t, publish(s, 1))
	require.Nil(t, d.names[".xfer-"+testID+"/1.layer"])
	requireIs(t, fault.CodeProtocol, s.SetLayer(1, 0, cvs))
	require.NoError(t, s.Finish())
}
