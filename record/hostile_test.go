package record

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Each breach of the protocol, where it stands in a conversation.
func TestPeersThatBreakTheProtocolAreToldAndLeft(t *testing.T) {
	ack := func(seq uint64) []byte { return appendSeq(nil, kindAck, seq) }
	rewind := func(seq uint64) []byte { return appendSeq(nil, kindRewind, seq) }
	end := func(next uint64) []byte { return appendSeq(nil, kindEnd, next) }
	small := &Options{Window: 4, WindowBytes: 64, MaxRecord: 16}
	for name, test := range map[string]struct {
		opts    *Options
		before  func(p *rawPeer)
		frames  [][]byte
		because string
	}{
		"ACK of nothing sent":        {nil, nil, [][]byte{ack(1)}, "record 1 is acknowledged after 0, and 0 were sent"},
		"ACK of more than sent":      {nil, func(p *rawPeer) { p.write(1, 1) }, [][]byte{ack(3)}, "record 3 is acknowledged"},
		"ACK of the last number":     {nil, func(p *rawPeer) { p.write(1, 1) }, [][]byte{ack(math.MaxUint64)}, "is acknowledged"},
		"ACK backwards":              {nil, func(p *rawPeer) { p.write(1, 1) }, [][]byte{ack(2), ack(1)}, "record 1 is acknowledged after 2"},
		"riding ACK of nothing sent": {nil, nil, [][]byte{rawBatchAck(batch{first: 1, acked: true, ack: 1}, "x")}, "record 1 is acknowledged"},
		"riding ACK backwards": {nil, func(p *rawPeer) { p.write(1, 1) },
			[][]byte{rawBatchAck(batch{first: 1, acked: true, ack: 2}, "x"), rawBatchAck(batch{first: 2, acked: true, ack: 1}, "x")},
			"record 1 is acknowledged after 2"},
		"riding ACK that was not agreed on": {&Options{NoBatchAck: true}, func(p *rawPeer) { p.write(1) },
			[][]byte{rawBatchAck(batch{first: 1, acked: true, ack: 1}, "x")}, "not agreed on"},

		"FAIL of nothing sent":   {nil, nil, [][]byte{failure{seq: 1}.append(nil)}, "record 1 has failed, and 0 were sent"},
		"FAIL of an unsent one":  {nil, func(p *rawPeer) { p.write(1) }, [][]byte{failure{seq: 2, applied: 1}.append(nil)}, "record 2 has failed"},
		"FAIL of an applied one": {nil, func(p *rawPeer) { p.write(1, 1) }, [][]byte{ack(2), failure{seq: 2, applied: 1}.append(nil)}, "record 1 is acknowledged after 2"},
		"FAIL that applies more than sent": {nil, func(p *rawPeer) { p.write(1) },
			[][]byte{failure{seq: 9, applied: 2}.append(nil)}, "record 2 is acknowledged"},
		"FAIL of what it says is applied": {nil, func(p *rawPeer) { p.write(1) }, [][]byte{failure{seq: 1, applied: 1}.append(nil)}, "FAIL of record 1, after 1"},
		"FAIL and ACK beyond it": {nil, func(p *rawPeer) { p.write(1, 1, 1) },
			[][]byte{failure{seq: 2, applied: 1, retryable: true}.append(nil), ack(2)}, "record 2 is acknowledged after 1, and 1 were sent"},
		"FAIL and ACK of all": {nil, func(p *rawPeer) { p.write(1, 1, 1) },
			[][]byte{failure{seq: 2, applied: 0, retryable: true}.append(nil), ack(1), ack(3)}, "record 3 is acknowledged"},
		"FAIL and FAIL above it": {nil, func(p *rawPeer) { p.write(1, 1, 1) },
			[][]byte{failure{seq: 2, retryable: true}.append(nil), failure{seq: 3, retryable: true}.append(nil)}, "record 3 has failed, and 1 were sent"},
		"FAIL and ACK before REWIND": {nil, func(p *rawPeer) {
			p.write(1, 1)
			p.send(failure{seq: 1, retryable: true}.append(nil))
		}, [][]byte{ack(1)}, "record 1 is acknowledged after 0, and 0 were sent"},

		"REWIND without a failure": {nil, nil, [][]byte{rewind(1)}, "nothing has failed"},
		"REWIND below the failure": {nil, func(p *rawPeer) {
			p.send(rawBatch(1, "a", "b"))
			p.read(2)
			require.NoError(p.t, p.s.Fail(2, 1, true, ""))
		}, [][]byte{rewind(1)}, "REWIND to 1, and 2 has failed"},
		"REWIND twice": {nil, func(p *rawPeer) {
			p.send(rawBatch(1, "a"))
			p.read(1)
			require.NoError(p.t, p.s.Fail(1, 1, true, ""))
		}, [][]byte{rewind(1), rewind(1)}, "nothing has failed"},

		"records beyond the window":         {small, nil, [][]byte{rawBatch(1, "a", "b", "c", "d"), rawBatch(5, "e")}, "beyond the window"},
		"records beyond the window at once": {small, nil, [][]byte{rawBatch(1, "a", "b", "c", "d", "e")}, "beyond the window"},
		"records that are read but not applied": {small, func(p *rawPeer) {
			p.send(rawBatch(1, "a", "b", "c", "d"))
			p.read(4)
		}, [][]byte{rawBatch(5, "e")}, "beyond the window"},
		"bytes beyond the window":         {small, nil, [][]byte{rawBatch(1, letters(16), letters(16), letters(16)), rawBatch(4, letters(13))}, "beyond the window"},
		"bytes beyond the window at once": {small, nil, [][]byte{rawBatch(1, letters(16), letters(16), letters(16), letters(16))}, "beyond the window"},
		"a frame beyond the window":       {small, nil, [][]byte{rawBatch(1, letters(84))}, "BATCH of"},
		"a record over MaxRecord":         {small, nil, [][]byte{rawBatch(1, letters(17))}, "record of 17 bytes, at most 16"},

		"a record that is not due":    {nil, nil, [][]byte{rawBatch(2, "x")}, "record 2 where 1 is due"},
		"record 0":                    {nil, nil, [][]byte{rawBatch(0, "x")}, "record 0 where 1 is due"},
		"the same record again":       {nil, nil, [][]byte{rawBatch(1, "x"), rawBatch(1, "x")}, "record 1 where 2 is due"},
		"a gap":                       {nil, nil, [][]byte{rawBatch(1, "x"), rawBatch(3, "x")}, "record 3 where 2 is due"},
		"an empty BATCH":              {nil, nil, [][]byte{header{kind: kindBatch, length: batchHead}.append(nil)}, "BATCH of 12 bytes"},
		"a BATCH of no record":        {nil, nil, [][]byte{zeroCount()}, "BATCH of 0 records"},
		"a BATCH with fewer records":  {nil, nil, [][]byte{rawBatchAck(batch{first: 1, count: 3}, "x", "y")}, "BATCH"},
		"a BATCH with more records":   {nil, nil, [][]byte{rawBatchAck(batch{first: 1, count: 1}, "x", "y")}, "2 bytes behind its records"},
		"a BATCH of very many":        {nil, nil, [][]byte{rawBatchAck(batch{first: 1, count: math.MaxInt32}, "x")}, "BATCH of 2147483647 records"},
		"a BATCH after END":           {nil, nil, [][]byte{end(1), rawBatch(1, "x")}, "BATCH after END"},
		"END twice":                   {nil, nil, [][]byte{end(1), end(1)}, "END at 1"},
		"END too early":               {nil, nil, [][]byte{rawBatch(1, "x"), end(1)}, "END at 1, after record 1"},
		"END too late":                {nil, nil, [][]byte{rawBatch(1, "x"), end(3)}, "END at 3, after record 1"},
		"a kind that there is not":    {nil, nil, [][]byte{header{kind: 7}.append(nil)}, "unknown kind 0x07"},
		"a second hello":              {nil, nil, [][]byte{rawHello(helloOpen).append(nil)}, "unknown kind 0xf5"},
		"a flag that there is not":    {nil, nil, [][]byte{{1, 2, 0, 0, 0, 0, 0, 20}}, "BATCH with flags 0x020000"},
		"a frame of 4 GiB":            {nil, nil, [][]byte{{1, 0, 0, 0, 255, 255, 255, 255}}, "BATCH of 4294967295 bytes"},
		"a message over its cap":      {nil, nil, [][]byte{header{kind: kindFail, length: failHead + maxText + 1}.append(nil)}, "FAIL of 1046 bytes"},
		"a CLOSE over its cap":        {nil, nil, [][]byte{header{kind: kindClose, length: closeHead + maxText + 1}.append(nil)}, "CLOSE of 1029 bytes"},
		"an ACK that is not a number": {nil, nil, [][]byte{header{kind: kindAck, length: 9}.append(nil)}, "ACK of 9 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := new(Registry)
				opts := Options{}
				if test.opts != nil {
					opts = *test.opts
				}
				opts.Registry = r
				p := withRaw(t, &opts, nil)
				if test.before != nil {
					test.before(p)
				}
				last := len(test.frames) - 1
				p.send(test.frames[:last]...)
				require.NoError(t, p.s.Err(), "before the breach")
				p.send(test.frames[last])
				p.breaks(test.because)
				require.Empty(t, r.Snapshots())
			})
		})
	}
}

func letters(n int) string { return strings.Repeat("x", n) }

// zeroCount returns a BATCH with a record, of which it says that there is none.
func zeroCount() []byte {
	b := rawBatch(1, "x")
	binary.BigEndian.PutUint32(b[headerSize+8:], 0)
	return b
}

// Whoever waits when the peer breaks the protocol learns it.
func TestWhoWaitsLearnsOfABreach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := withRaw(t, &Options{Window: 1}, nil)
		p.write(1)
		errs := make(chan error, 3)
		go func() { errs <- p.s.Barrier(t.Context()) }()
		go func() { _, err := p.s.WriteRecord(t.Context(), nil); errs <- err }()
		go func() { _, err := p.s.ReadRecord(t.Context()); errs <- err }()
		p.send(appendSeq(nil, kindAck, 7))
		for range cap(errs) {
			require.ErrorIs(t, <-errs, ErrProtocol)
		}
		p.breaks("record 7")
	})
}

// What is allowed at the very edge is no breach.
func TestPeersThatStayWithinTheLimitsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := withRaw(t, &Options{Window: 4, WindowBytes: 64, MaxRecord: 16}, nil)
		p.write(1, 1)
		p.send(appendSeq(nil, kindAck, 1), appendSeq(nil, kindAck, 1), appendSeq(nil, kindAck, 2))
		p.send(rawBatch(1, letters(16), letters(16), letters(16), letters(12))) // 17 + 17 + 17 + 13
		require.NoError(t, p.s.Err())
		p.read(4)
		require.NoError(t, p.s.AckRecord(4))
		require.Equal(t, []byte{0, 0, 0, 0, 0, 0, 0, 4}, p.skipTo(kindAck))
		p.send(rawBatch(5, "", "", "", ""))
		p.read(1)
		require.NoError(t, p.s.Fail(5, 1, true, "no"))
		// all of this may be on its way
		p.send(rawBatch(9, "x"), rawBatch(1000, letters(40)), appendSeq(nil, kindEnd, 17), appendSeq(nil, kindRewind, 6))
		require.NoError(t, p.s.Err())
		p.send(appendSeq(nil, kindRewind, 5), rawBatch(5, "again"), appendSeq(nil, kindEnd, 6))
		r, err := p.s.ReadRecord(t.Context())
		require.NoError(t, err)
		require.Equal(t, Record{5, []byte("again")}, r)
		_, err = p.s.ReadRecord(t.Context())
		require.Equal(t, io.EOF, err)
		require.NoError(t, p.s.AckRecord(5))
		require.NoError(t, p.s.Close())
		code, _ := p.told()
		require.Equal(t, int(codeDone), code)
	})
}

// A frame that is cut, anywhere, is a loss; so is an end without CLOSE.
func TestConnsThatEndWithoutCloseAreALoss(t *testing.T) {
	for _, test := range goldenFrames {
		for n := range test.b {
			if kind(test.b[0]) == kindBatch && n >= batchRoom {
				break // there is more to say: record 7 where 1 is due
			}
			synctest.Test(t, func(t *testing.T) {
				p := withRaw(t, nil, nil)
				p.send(test.b[:n])
				require.NoError(t, p.s.Err(), "%s, %d bytes", test.name, n)
				require.NoError(t, p.conn.CloseWrite())
				p.ended(io.ErrUnexpectedEOF)
				require.NotErrorIs(t, p.s.Err(), ErrProtocol)
				code, _ := p.told()
				require.Equal(t, -1, code, "a conn that has ended is told nothing")
			})
		}
	}
}

// A byte at a time is as good as all at once.
func TestPeersThatTrickleAreUnderstood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := withRaw(t, nil, nil)
		p.write(1, 2)
		wire := bytes.Join([][]byte{
			rawBatchAck(batch{first: 1, acked: true, ack: 1}, "one", "", "three"), appendSeq(nil, kindAck, 2),
			appendSeq(nil, kindEnd, 4), appendClose(nil, codeDone, ""),
		}, nil)
		for i := range wire {
			time.Sleep(time.Second)
			p.send(wire[i : i+1])
		}
		require.NoError(t, p.s.Barrier(t.Context()))
		var got []string
		for r, err := range p.s.Records(t.Context()) {
			require.NoError(t, err)
			got = append(got, string(r.Payload))
		}
		require.Equal(t, []string{"one", "", "three"}, got)
		require.NoError(t, p.s.AckRecord(3))
		require.NoError(t, p.s.Close())
	})
}

// A peer that never reads holds up its own records and nothing else, and Close for CloseTimeout.
func TestPeersThatNeverReadAreLeftInTime(t *testing.T) {
	for _, wide := range []bool{false, true} { // the window is full, or only the conn
		synctest.Test(t, func(t *testing.T) {
			opts := &Options{WindowBytes: 32 << 20, MaxRecord: 1 << 20, CloseTimeout: 3 * time.Second}
			if !wide {
				opts.WindowBytes = 1 << 20
				opts.MaxRecord = 1 << 10
			}
			p := withRaw(t, opts, func(h *hello) { h.bytes = 32 << 20 })
			ctx := within(t, time.Second)
			var err error
			for n := 0; err == nil; n++ {
				_, err = p.s.WriteRecord(ctx, make([]byte, 64<<10))
			}
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.LessOrEqual(t, p.s.Snapshot().OutstandingBytes, opts.WindowBytes)
			p.send(rawBatch(1, "still", "read"))
			p.read(2)
			require.ErrorIs(t, p.s.Barrier(within(t, time.Second)), context.DeadlineExceeded)
			start := time.Now()
			err = p.s.Close()
			if wide {
				require.Equal(t, 3*time.Second, time.Since(start))
				var e *Error
				require.True(t, errors.As(err, &e), "%v", err)
				require.True(t, e.Timeout())
				return
			}
			require.NoError(t, err)
			require.Zero(t, time.Since(start), "all has left")
		})
	}
}

// The reason is told for a second at most, to a peer that does not want to know.
func TestPeersThatNeverReadAreNotToldForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := withRaw(t, &Options{WindowBytes: 32 << 20}, func(h *hello) { h.bytes = 32 << 20 })
		for range 300 {
			p.write(64 << 10)
		}
		start := time.Now()
		p.send(appendSeq(nil, kindRewind, 1))
		<-p.s.Done()
		require.Equal(t, time.Second, time.Since(start))
		require.ErrorIs(t, p.s.Err(), ErrProtocol)
		require.NotErrorIs(t, p.s.Err(), os.ErrDeadlineExceeded)
	})
}
