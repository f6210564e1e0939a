package main

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFeedsCarryEveryRecordInOrder(t *testing.T) {
	set := settings{Rounds: 1, Cell: 20 * time.Millisecond, WarmUp: 5 * time.Millisecond, Payload: "random"}
	results, err := measureFeeds(feeds(), set, func(string) {})
	require.NoError(t, err)
	require.Len(t, results, len(feeds())*len(recordSizes))
	for _, r := range results {
		require.Positive(t, r.Median, "%+v", r)
		require.Positive(t, r.Ratio.Median, "%+v", r)
	}
	latency, err := measureLatency(set)
	require.NoError(t, err)
	require.Positive(t, latency.Ratio.Median)

	var table bytes.Buffer
	require.NoError(t, writeFeeds(&table, results))
	require.NoError(t, writeLatency(&table, latency))
	for _, f := range feeds() {
		require.Contains(t, table.String(), f.Name())
	}
}

func TestSequenceFindsWhatIsLostRepeatedOrCut(t *testing.T) {
	record := func(n uint64) []byte { return append(binary.BigEndian.AppendUint64(nil, n), 0, 0) }
	q := sequence{size: 10}
	require.NoError(t, q.got(record(0)))
	require.Error(t, q.got(record(0)))
	require.Error(t, q.got(record(2)))
	require.Error(t, q.got(record(1)[:9]))
	require.NoError(t, q.got(record(1)))
}
