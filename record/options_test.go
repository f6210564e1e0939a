package record

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// Claim: record.ErrInvalid
func TestOptionsThatCannotWorkNameTheField(t *testing.T) {
	for says, o := range map[string]Options{
		"Window is -1,":                          {Window: -1},
		"Window is 16777217,":                    {Window: maxWindow + 1},
		"WindowBytes is -1,":                     {WindowBytes: -1},
		"WindowBytes is 5,":                      {WindowBytes: 5},
		"WindowBytes is 1073741825,":             {WindowBytes: maxBytes + 1},
		"MaxRecord is -1,":                       {MaxRecord: -1},
		"MaxRecord is 96,":                       {MaxRecord: 96, WindowBytes: 100},
		fmt.Sprint("MaxRecord is ", math.MaxInt): {MaxRecord: math.MaxInt},
		"BatchBytes is -1,":                      {BatchBytes: -1},
		"BatchBytes is 1073741825,":              {BatchBytes: maxBytes + 1},
		"Linger is -1ns,":                        {Linger: -1},
		"HandshakeTimeout is -1ns,":              {HandshakeTimeout: -1},
		"CloseTimeout is -1ns,":                  {CloseTimeout: -1},
	} {
		for _, establish := range []opener{OpenConn, AcceptConn} {
			near, far := newLink()
			s, err := establish(t.Context(), near, &o)
			require.Nil(t, s)
			require.ErrorIs(t, err, ErrInvalid, says)
			require.ErrorContains(t, err, says)
			_, err = far.Write([]byte("x"))
			require.Error(t, err, "the conn is closed")
		}
		_, err := Open(t.Context(), nil, "orders", &o)
		require.ErrorIs(t, err, ErrInvalid, says)
		require.ErrorContains(t, err, `open "orders": `)
	}
	for _, o := range []*Options{nil, {}, {Window: 1}, {Window: maxWindow, WindowBytes: maxBytes, MaxRecord: maxBytes - 5, BatchBytes: maxBytes},
		{WindowBytes: 6}, {WindowBytes: 100, MaxRecord: 95, BatchBytes: 1}, {AckDelay: -1}} {
		got := o.withDefaults()
		require.NoError(t, got.validate(), "%+v", o)
	}
	given := Options{}
	given.withDefaults()
	require.Equal(t, Options{}, given, "the caller's is not touched")
}

// Each field of Options has its test.
func TestOptionsAreAllProved(t *testing.T) {
	proved := map[string]string{
		"Window": "TestOptionWindow", "WindowBytes": "TestOptionWindow", "MaxRecord": "TestOptionMaxRecord",
		"BatchBytes": "TestOptionBatchBytes", "Linger": "TestOptionLinger", "AckDelay": "TestOptionAckDelay",
		"NoBatchAck": "TestOptionNoBatchAck", "HandshakeTimeout": "TestOptionHandshakeTimeout", "CloseTimeout": "TestOptionCloseTimeout",
		"Store": "TestAcceptConnTakesItsStoreForAPeerWithAHello", "Registry": "TestRegistryListsWhatIsOpen",
	}
	for f := range reflect.TypeFor[Options]().Fields() {
		require.Contains(t, proved, f.Name)
	}
	require.Len(t, proved, reflect.TypeFor[Options]().NumField())
}

// The lower window of both sides counts, in both directions: for the writer, and in what the peer is told.
// Claim: record.Options.Window, record.Options.WindowBytes
func TestOptionWindow(t *testing.T) {
	for name, test := range map[string]struct {
		ours    Options
		records uint32 // the peer's
		bytes   uint32
		fits    int // records of 9 bytes, which are 10
	}{
		"ours, in records":   {Options{Window: 3}, 100, 1 << 20, 3},
		"theirs, in records": {Options{Window: 100}, 3, 1 << 20, 3},
		"ours, in bytes":     {Options{WindowBytes: 59}, 100, 1 << 20, 5},
		"theirs, in bytes":   {Options{}, 100, 50, 5},
		"one record":         {Options{Window: 1}, 1, 1 << 20, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			near, far := newLink()
			h := rawHello(helloOpen)
			h.records, h.bytes, h.largest = test.records, test.bytes, 9
			_, err := far.Write(h.append(nil))
			require.NoError(t, err)
			s, err := AcceptConn(t.Context(), near, &test.ours)
			require.NoError(t, err)
			told, err := readHello(far, helloAccept)
			require.NoError(t, err)
			want := test.ours.withDefaults()
			require.Equal(t, []uint32{uint32(want.Window), uint32(want.WindowBytes), uint32(want.MaxRecord)},
				[]uint32{told.records, told.bytes, told.largest}, name)
			ctx := within(t, time.Second)
			for n := 0; err == nil; n++ {
				if _, err = s.WriteRecord(ctx, make([]byte, 9)); err != nil {
					require.Equal(t, test.fits, n, name)
				}
			}
			require.ErrorIs(t, err, context.DeadlineExceeded)
			_, err = far.Write(appendSeq(nil, kindAck, 1))
			require.NoError(t, err)
			_, err = s.WriteRecord(t.Context(), make([]byte, 9))
			require.NoError(t, err, "%s: there is room again", name)
			_, err = s.WriteBatch(t.Context(), make([][]byte, test.fits+60))
			require.ErrorIs(t, err, ErrTooLarge, "%s: more than there will ever be room for", name)
			require.NoError(t, s.Close())
			require.NoError(t, far.Close())
		})
	}
}

// Claim: record.ErrTooLarge, record.Options.MaxRecord
func TestOptionMaxRecord(t *testing.T) {
	for ours, want := range map[Options]int{{}: 1 << 20, {MaxRecord: 10}: 10, {WindowBytes: 100}: 95} {
		synctest.Test(t, func(t *testing.T) {
			a, b := twoOn(t, nil, &ours)
			_, err := a.WriteRecord(t.Context(), make([]byte, want+1))
			require.ErrorIs(t, err, ErrTooLarge)
			_, err = a.WriteRecord(t.Context(), make([]byte, want))
			require.NoError(t, err)
			r, err := b.ReadRecord(t.Context())
			require.NoError(t, err)
			require.Len(t, r.Payload, want)
		})
	}
	synctest.Test(t, func(t *testing.T) { // what this side writes is no smaller for it
		a, b := twoOn(t, &Options{MaxRecord: 1}, nil)
		_, err := a.WriteRecord(t.Context(), []byte("longer"))
		require.NoError(t, err)
		_, err = b.WriteRecord(t.Context(), []byte("longer"))
		require.ErrorIs(t, err, ErrTooLarge)
	})
}

// Claim: record.Options.BatchBytes
func TestOptionBatchBytes(t *testing.T) {
	for batchBytes, want := range map[int][]int{
		0:   {1000},               // all together
		100: {10, 10, 10, 10, 10}, // records of 9 bytes, which are 10
		1:   {1, 1, 1, 1, 1, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := withRaw(t, &Options{BatchBytes: batchBytes}, nil)
			payloads := make([][]byte, 1000)
			for i := range payloads {
				payloads[i] = make([]byte, 9)
			}
			_, err := p.s.WriteBatch(t.Context(), payloads)
			require.NoError(t, err)
			for i, n := range want {
				body := p.expect(kindBatch)
				b, _, err := consumeBatch(header{kind: kindBatch, length: len(body)}, body)
				require.NoError(t, err)
				require.Equal(t, n, b.count, "BatchBytes %d, frame %d", batchBytes, i)
			}
			_, err = p.s.WriteRecord(t.Context(), make([]byte, 500))
			require.NoError(t, err, "one that is larger goes alone")
		})
	}
}

// Claim: record.Options.Linger
func TestOptionLinger(t *testing.T) {
	for linger, want := range map[time.Duration]time.Duration{0: 0, 20 * time.Millisecond: 20 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			p := withRaw(t, &Options{Linger: linger, BatchBytes: 100}, nil)
			start := time.Now()
			for range 3 {
				p.write(9)
			}
			body := p.expect(kindBatch)
			require.Equal(t, want, time.Since(start), "Linger %v", linger)
			if linger == 0 {
				return
			}
			require.True(t, bytes.HasSuffix(body[:batchHead], []byte{3}), "three together: %x", body)

			start = time.Now()
			p.write(9, 9, 9, 9, 9, 9, 9, 9, 9, 9) // as much as leaves together
			p.expect(kindBatch)
			require.Zero(t, time.Since(start), "a full batch does not wait")

			p.write(9)
			go func() { _ = p.s.Barrier(within(t, time.Second)) }()
			p.expect(kindBatch)
			require.Zero(t, time.Since(start), "nor does one that somebody is at a Barrier for")

			p.write(9)
			require.NoError(t, p.s.CloseWrite())
			p.expect(kindBatch)
			p.expect(kindEnd)
			require.Zero(t, time.Since(start), "nor the last")
		})
	}
}

// Claim: record.Options.AckDelay
func TestOptionAckDelay(t *testing.T) {
	for delay, want := range map[time.Duration]time.Duration{0: time.Millisecond, time.Minute / 2: time.Minute / 2, -1: 0} {
		synctest.Test(t, func(t *testing.T) {
			p := withRaw(t, &Options{AckDelay: delay, Window: 40, WindowBytes: 4000}, nil)
			p.send(rawBatch(1, "a", "b", "c", "d"))
			p.read(4)
			start := time.Now()
			require.NoError(t, p.s.AckRecord(2))
			require.Equal(t, uint64(2), p.number(kindAck))
			require.Equal(t, want, time.Since(start), "AckDelay %v", delay)

			start = time.Now()
			require.NoError(t, p.s.AckRecord(4))
			require.Equal(t, uint64(4), p.number(kindAck), "all that has come")
			require.Zero(t, time.Since(start))

			for seq := uint64(5); seq < 20; seq++ {
				p.send(rawBatch(seq, "x"))
			}
			p.read(15)
			require.NoError(t, p.s.AckRecord(14))
			require.Equal(t, uint64(14), p.number(kindAck), "a quarter of the window in records")
			require.Zero(t, time.Since(start))

			p.send(rawBatch(20, letters(1000), "x"))
			p.read(1)
			require.NoError(t, p.s.AckRecord(20))
			require.Equal(t, uint64(20), p.number(kindAck), "a quarter of the window in bytes")
			require.Zero(t, time.Since(start))
		})
	}
}

// Claim: record.Options.NoBatchAck
func TestOptionNoBatchAck(t *testing.T) {
	for _, ours := range []bool{false, true} {
		for _, theirs := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				p := withRaw(t, &Options{NoBatchAck: ours, AckDelay: time.Hour}, func(h *hello) {
					if theirs {
						h.caps &^= capBatchAck
					}
				})
				p.send(rawBatch(1, "a", "b"))
				p.read(2)
				require.NoError(t, p.s.AckRecord(1)) // not at once
				p.write(1)
				h, _, err := p.next()
				require.NoError(t, err)
				require.Equal(t, kindBatch, h.kind)
				require.Equal(t, !ours && !theirs, h.flags == flagAck, "ours %v, theirs %v", ours, theirs)
			})
		}
	}
}

// Claim: record.Options.CloseTimeout
func TestOptionCloseTimeout(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{0: 5 * time.Second, time.Second: time.Second} {
		synctest.Test(t, func(t *testing.T) {
			a, _ := twoOn(t, &Options{CloseTimeout: timeout}, nil)
			stuck(t, a)
			start := time.Now()
			require.ErrorIs(t, a.Close(), os.ErrDeadlineExceeded)
			require.Equal(t, want, time.Since(start), "CloseTimeout %v", timeout)
			select {
			case <-a.Done():
			default:
				require.FailNow(t, "not done")
			}
		})
	}
}

// stuck has s write more than its conn takes.
func stuck(t *testing.T, s *Stream) {
	synctest.Wait()
	s.conn.(*faultnet.Conn).Link().Freeze()
	for range 4 {
		_, err := s.WriteRecord(t.Context(), make([]byte, 64<<10))
		require.NoError(t, err)
	}
	synctest.Wait()
}

func TestTheDefaultsOfOptionsAreThoseThatTheyState(t *testing.T) {
	require.Equal(t, Options{
		Window: 65536, WindowBytes: 4 << 20, MaxRecord: 1 << 20, BatchBytes: 64 << 10, AckDelay: time.Millisecond,
		HandshakeTimeout: 5 * time.Second, CloseTimeout: 5 * time.Second,
	}, (*Options)(nil).withDefaults())
	small := (&Options{WindowBytes: 1000}).withDefaults()
	require.Less(t, small.MaxRecord, 1000, "what WindowBytes has room for")
}
