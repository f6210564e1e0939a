package boltstore

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
)

// What doc.go says of costs: an Append costs its transaction, and little for each record.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []uint64{1, 64, 1024} {
		b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
			s := newStore(b)
			b.ReportAllocs()
			var last uint64
			for b.Loop() {
				require.NoError(b, s.Append(last+1, payloads(last+1, last+n), last))
				last += n
			}
			b.ReportMetric(float64(b.N)*float64(n)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// An acknowledgement of what Commit has kept costs a look.
func BenchmarkAppliedAfterCommit(b *testing.B) {
	s := newStore(b)
	require.NoError(b, s.Applied(peerLog, 0))
	require.NoError(b, s.db.Update(func(tx *bbolt.Tx) error { return s.Commit(tx, 1) }))
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, s.Applied(peerLog, 1))
	}
}
