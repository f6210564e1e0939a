package staging

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestStatesSayWhatIsLeft(t *testing.T) {
	d := newTestDisk(1, false)
	all, err := States(d)
	require.NoError(t, err)
	require.Empty(t, all)

	s, err := Create(d, testID, tree(), &Options{Rules: testRules})
	require.NoError(t, err)
	require.NoError(t, receive(s, &way{}, tree()[1], said{}))
	require.NoError(t, publish(s, 2))
	require.NoError(t, s.WriteAt(5, content(5, 40), 0))
	require.NoError(t, s.WriteAt(7, content(7, 30), 0))
	require.NoError(t, s.Sync())
	require.NoError(t, s.Reset(7))
	all, err = States(d)
	require.NoError(t, err, "while it runs")
	require.Len(t, all, 1)
	require.Equal(t, testID, all[0].ID)
	require.Equal(t, "d", all[0].Name)
	require.Equal(t, int64(40), all[0].Bytes)
	require.NoError(t, s.Close())

	require.NoError(t, d.Mkdir(".xfer-00000000", 0o700)) // of which nothing else came to be
	d.names[".xfer-00000000"].mtime = time.Now().Add(time.Hour)
	require.NoError(t, d.Mkdir(".xfer-other", 0o700))
	putFile(d, ".xfer-00000001", 5, time.Now())
	d.names[".xfer-"+testID+"/meta"].data[metaHead] = 0xff
	all, err = States(d)
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, "00000000", all[0].ID, "the last one is first")
	require.Empty(t, all[1].Name)
	gone, err := Cleanup(d, 0)
	require.NoError(t, err)
	require.Len(t, gone, 1, "one is of the future")
}
