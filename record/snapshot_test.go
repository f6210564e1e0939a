package record

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A conversation in which every counter moves, in virtual time, and what each says at its stations.
// Claim: record.Snapshot.Acked, record.Snapshot.AcksIn, record.Snapshot.AcksOut, record.Snapshot.Applied
// Claim: record.Snapshot.ApplyWait, record.Snapshot.BarrierWait, record.Snapshot.Barriers, record.Snapshot.BatchesIn
// Claim: record.Snapshot.BatchesOut, record.Snapshot.BytesIn, record.Snapshot.BytesOut, record.Snapshot.Delivered
// Claim: record.Snapshot.FailuresIn, record.Snapshot.FailuresOut, record.Snapshot.FlushWait, record.Snapshot.Outstanding
// Claim: record.Snapshot.OutstandingBytes, record.Snapshot.PeakPendingApply, record.Snapshot.PendingAck
// Claim: record.Snapshot.PendingApply, record.Snapshot.PiggybackIn, record.Snapshot.PiggybackOut, record.Snapshot.Received
// Claim: record.Snapshot.RecordsIn, record.Snapshot.RecordsOut, record.Snapshot.Written, record.Snapshot.ID
// Claim: record.Snapshot.Name, record.Snapshot.Opened, record.Snapshot.Peer
func TestSnapshotCountsWhatHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		near, far := newLink()
		_, err := far.Write(rawHello(helloOpen).append(nil))
		require.NoError(t, err)
		s, err := accept(ctx, near, identity{"orders", "bob"}, nil)
		require.NoError(t, err)
		p := &rawPeer{t: t, conn: far, s: s}
		_, err = readHello(far, helloAccept)
		require.NoError(t, err)
		want := Snapshot{ID: s.id, Name: "orders", Peer: "bob", Opened: time.Now()}
		is := func(when string) {
			t.Helper()
			synctest.Wait()
			require.Equal(t, want, s.Snapshot(), when)
		}
		is("opened")

		p.write(10) // 11 bytes with its length
		payloads := [][]byte{make([]byte, 200), {}}
		_, err = s.WriteBatch(ctx, payloads) // 202, 1
		require.NoError(t, err)
		want.BatchesOut, want.RecordsOut, want.BytesOut = 2, 3, 210
		want.Written, want.Outstanding, want.OutstandingBytes = 3, 3, 11+202+1
		is("three records, two BATCHes")

		p.send(rawBatchAck(batch{first: 1, acked: true, ack: 1}, "ab", "cd"), rawBatch(3, "ef", "gh", "ij"))
		want.BatchesIn, want.PiggybackIn, want.RecordsIn, want.BytesIn = 2, 1, 5, 15
		want.Acked, want.Outstanding = 1, 2 // of a chunk that goes as a whole
		want.Received, want.PendingApply, want.PeakPendingApply = 5, 5, 5
		is("five records have come, and an acknowledgement with them")

		p.read(4)
		require.NoError(t, s.AckRecord(2))
		want.Delivered, want.Applied, want.PendingApply, want.PendingAck = 4, 2, 3, 2
		is("two are applied, which the peer is not told at once")
		p.write(0)
		want.BatchesOut, want.RecordsOut, want.Written, want.Outstanding = 3, 4, 4, 3
		want.OutstandingBytes, want.PiggybackOut, want.PendingAck = 11+202+1+1, 1, 0
		is("the acknowledgement rides in the next BATCH")
		require.NoError(t, s.AckRecord(3))
		time.Sleep(time.Millisecond)
		want.Applied, want.PendingApply, want.AcksOut = 3, 2, 1
		is("the next one goes alone, after AckDelay")

		require.NoError(t, s.Fail(4, 7, true, "later"))
		want.FailuresOut, want.Delivered = 1, 3
		is("a record fails")
		p.send(appendSeq(nil, kindRewind, 4), rawBatch(4, "gh"))
		want.BatchesIn, want.RecordsIn, want.BytesIn, want.Received, want.PendingApply = 3, 6, 18, 4, 1
		is("it comes again")

		p.send(failure{seq: 3, applied: 2, code: 9, retryable: true}.append(nil))
		want.FailuresIn, want.Acked, want.Outstanding = 1, 2, 2
		is("one of ours fails")
		require.NoError(t, s.Resend())
		want.BatchesOut = 4
		is("it is sent again")

		waiting := make(chan error, 1)
		go func() { waiting <- s.Barrier(ctx) }()
		time.Sleep(3 * time.Second)
		p.send(appendSeq(nil, kindAck, 4))
		require.NoError(t, <-waiting)
		want.AcksIn, want.Acked, want.Outstanding, want.OutstandingBytes = 1, 4, 0, 0
		want.Barriers, want.ApplyWait, want.BarrierWait = 1, 3*time.Second, 3*time.Second
		is("a barrier has waited for the peer")

		far.Link().Freeze()
		big := make([]byte, 100<<10) // the conn takes 64 KiB
		_, err = s.WriteRecord(ctx, big)
		require.NoError(t, err)
		go func() { waiting <- s.Barrier(ctx) }()
		time.Sleep(2 * time.Second)
		far.Link().Thaw()
		p.skipTo(kindFail)
		p.skipTo(kindBatch) // sent again
		require.Len(t, p.skipTo(kindBatch), batchHead+recordSize(len(big)))
		synctest.Wait()
		time.Sleep(5 * time.Second)
		p.send(appendSeq(nil, kindAck, 5))
		require.NoError(t, <-waiting)
		want.BatchesOut, want.RecordsOut, want.BytesOut, want.Written = 5, 5, 210+100<<10, 5
		want.AcksIn, want.Acked, want.Barriers = 2, 5, 2
		want.FlushWait, want.ApplyWait, want.BarrierWait = 2*time.Second, 8*time.Second, 10*time.Second
		is("another one has waited for the conn, and for the peer")

		require.ErrorIs(t, s.BarrierTo(ctx, 6), ErrRange)
		require.NoError(t, s.BarrierTo(ctx, 5))
		is("what need not wait is no wait")

		require.NoError(t, s.Close())
		want.Err = ErrClosed
		is("closed")
		require.NoError(t, far.Close())
	})
}
