package record

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What is read is written the same, whatever the frame.
func FuzzHeader(f *testing.F) {
	for _, test := range goldenFrames {
		f.Add(test.b)
		f.Add(test.b[:headerSize])
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		again, err := decoded(wire, 1<<10, 100)
		if err == nil {
			require.Equal(t, wire[:len(again)], again)
		}
	})
}

// What is taken for records is written the same, and every record is within its bounds.
func FuzzBatch(f *testing.F) {
	for _, payloads := range [][]string{{""}, {"", "", ""}, {"hi", "", letters(127), letters(128)}, {letters(1000)}} {
		f.Add(rawBatch(1, payloads...)[batchRoom:], len(payloads), 1000)
	}
	f.Add([]byte{0x80, 0}, 1, 10)
	f.Fuzz(func(t *testing.T, records []byte, count, largest int) {
		count, largest = max(0, count), max(1, largest)
		if len(records) == 0 || checkRecords(records, count, largest) != nil {
			return
		}
		var again []byte
		n := 0
		for p := range recordsOf(records, 1, 1) {
			require.LessOrEqual(t, len(p), largest)
			again = appendRecord(again, p)
			n++
		}
		require.Equal(t, count, n)
		require.Equal(t, records, again)
	})
}

func FuzzHello(f *testing.F) {
	for _, test := range goldenHellos {
		f.Add(test.h.append(nil))
	}
	f.Add(appendRefusal(nil, codeBusy, "later"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		for _, want := range []helloKind{helloOpen, helloAccept} {
			h, err := readHello(bytes.NewReader(wire), want)
			var e *Error
			switch {
			case err == nil:
				require.Equal(t, wire[:helloSize], h.append(nil))
				_, _ = begin(h, h)
			case errors.As(err, &e):
				again := appendRefusal(nil, e.Code, e.Text)
				copy(again[4:], wire[4:helloPrefix]) // of any version
				require.Equal(t, wire[:len(again)], again)
			}
		}
	})
}

// byteConn is a conn that brings bytes, ends, and takes whatever is written.
type byteConn struct {
	net.Conn
	r *bytes.Reader
}

func (c *byteConn) Read(p []byte) (int, error)       { return c.r.Read(p) }
func (c *byteConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *byteConn) Close() error                     { return nil }
func (c *byteConn) SetDeadline(time.Time) error      { return nil }
func (c *byteConn) SetWriteDeadline(time.Time) error { return nil }

// Whatever a peer sends behind a good hello, while the application does what script says: no panic, no hang, no record from nowhere
// or out of order, and no more memory than is promised. What comes in two parts is looked at in between.
func FuzzStreamInput(f *testing.F) {
	f.Add([]byte{}, []byte{}, script("w"))
	for _, test := range goldenFrames {
		f.Add(test.b, []byte{}, script("rrww"))
	}
	records := rawBatch(1, "one", "", letters(100))
	end := append(appendSeq(nil, kindEnd, 4), appendClose(nil, codeDone, "")...)
	f.Add(records, end, script("rrrak"))
	f.Add(records, append(rawBatch(4, "x"), append(appendSeq(nil, kindRewind, 2), rawBatch(2, "", "x")...)...), script("rrfrrra"))
	f.Add(appendSeq(nil, kindAck, 2), failure{seq: 3, applied: 2, retryable: true}.append(nil), script("wwwswb"))
	f.Add(failure{seq: 1, retryable: true}.append(nil), append(appendSeq(nil, kindAck, 1), end...), script("wswk"))
	f.Add(failure{seq: 2, applied: 1}.append(nil), appendClose(nil, codeDone, ""), script("wwb"))
	f.Add(rawBatchAck(batch{first: 1, acked: true, ack: 1}, letters(900)), rawBatch(2, letters(60)), script("wr"))
	f.Fuzz(func(t *testing.T, one, two, script []byte) {
		synctest.Test(t, func(t *testing.T) {
			const window = 1 << 10
			opts := &Options{Window: 16, WindowBytes: window, CloseTimeout: time.Second}
			conn := &pacedConn{more: make(chan []byte, 3), closed: make(chan struct{})}
			conn.more <- rawHello(helloOpen).append(nil)
			s, err := AcceptConn(t.Context(), conn, opts)
			require.NoError(t, err)
			u := &scripted{t: t, s: s}
			for i, wire := range [][]byte{one, two} {
				half := len(script) / 2
				u.run([][]byte{script[:half], script[half:]}[i])
				conn.more <- wire
				synctest.Wait()
				require.LessOrEqual(t, inMemory(s), promised(window))
				require.LessOrEqual(t, outMemory(s), promised(window))
			}
			u.run(script)
			close(conn.more)
			synctest.Wait()
			u.run(script)
			start := time.Now()
			_ = s.Close()
			<-s.Done()
			require.LessOrEqual(t, time.Since(start), time.Second)
			require.Error(t, s.Err())
		})
	})
}

// pacedConn brings what it is given, one after the other, until it is closed or there is no more.
type pacedConn struct {
	byteConn
	more   chan []byte
	closed chan struct{}
	once   sync.Once
	rest   []byte
}

func (c *pacedConn) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		select {
		case b, ok := <-c.more:
			if !ok {
				return 0, net.ErrClosed
			}
			c.rest = b
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *pacedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// scripted is an application that does what bytes say.
type scripted struct {
	t    *testing.T
	s    *Stream
	last uint64 // that was read
}

// ops are what it can do: read, acknowledge, fail, write, resend, wait at a barrier, close its side, and close.
const ops = "rafwsbek"

// script returns the bytes that have it do these.
func script(letters string) []byte {
	b := []byte(letters)
	for i, c := range b {
		b[i] = byte(strings.IndexByte(ops, c))
	}
	return b
}

func (u *scripted) run(script []byte) {
	for _, c := range script[:min(len(script), 40)] {
		ctx := within(u.t, time.Millisecond)
		switch ops[c%byte(len(ops))] {
		case 'r':
			if r, err := u.s.ReadRecord(ctx); err == nil {
				require.Equal(u.t, u.last+1, r.Seq)
				u.last = r.Seq
			}
		case 'a':
			_ = u.s.AckRecord(u.last)
		case 'f':
			if u.s.Fail(u.last, 1, true, "again") == nil {
				u.last--
			}
		case 'w':
			_, _ = u.s.WriteRecord(ctx, make([]byte, int(c)))
		case 's':
			_ = u.s.Resend()
		case 'b':
			_ = u.s.Barrier(ctx)
		case 'e':
			_ = u.s.CloseWrite()
		case 'k':
			go func() { _ = u.s.Close() }()
		}
		synctest.Wait()
	}
}
