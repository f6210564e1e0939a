package record

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/mangle"
)

// frameShape is what follows the hellos.
var frameShape = &mangle.Shape{
	Head: headerSize, Max: 1 << 20, Fields: [][2]int{{0, 1}, {1, 1}, {4, 4}, {7, 1}},
	Length: func(h []byte) int { return int(binary.BigEndian.Uint32(h[4:])) },
	Set:    func(h []byte, n int) { binary.BigEndian.PutUint32(h[4:], uint32(n)) },
}

// FuzzWholeStream: whatever a peer makes of its part of a record stream, the other side neither panics nor hangs, reads records in
// order, each number once, holds no more than it promises, and ends all calls with errors of a type.
func FuzzWholeStream(f *testing.F) {
	for _, fromOpener := range []bool{true, false} {
		f.Add(fromOpener, []byte{})
		f.Add(fromOpener, []byte{0, 1, 2, 0, 2, 1})
		f.Add(fromOpener, []byte{3, 0, 0, 4, 1, 9, 3, 13})
		f.Add(fromOpener, []byte{12, 8, 2, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 3})
	}
	f.Fuzz(func(t *testing.T, fromOpener bool, script []byte) {
		if len(script) > 1<<10 {
			return
		}
		synctest.Test(t, func(t *testing.T) { wholeStream(t, fromOpener, script) })
	})
}

// wholeStream makes one stream. fromOpener says that the side which opened it is the hostile one.
func wholeStream(t *testing.T, fromOpener bool, script []byte) {
	const window = 1 << 10
	opts := &Options{Window: 16, WindowBytes: window, CloseTimeout: time.Second, HandshakeTimeout: time.Second}
	opener, near := faultnet.Pipe(faultnet.LinkOptions{})
	far, accepter := faultnet.Pipe(faultnet.LinkOptions{})
	var middle sync.WaitGroup
	middle.Go(func() { carry(far, near, mangle.New(script, frameShape), fromOpener) })
	middle.Go(func() { carry(near, far, mangle.New(script, frameShape), !fromOpener) })
	accepted := make(chan *Stream, 1)
	go func() {
		s, err := AcceptConn(t.Context(), accepter, opts)
		assert.NoError(t, err)
		accepted <- s
	}()
	a, err := OpenConn(t.Context(), opener, opts)
	require.NoError(t, err)
	b := <-accepted
	honest := b
	if !fromOpener {
		honest = a
	}
	began := time.Now()
	var work sync.WaitGroup
	for _, s := range []*Stream{a, b} {
		work.Go(func() { useWhole(t, s, s == honest) })
	}
	for range 20 {
		time.Sleep(100 * time.Millisecond)
		require.LessOrEqual(t, inMemory(honest), promised(window))
		require.LessOrEqual(t, outMemory(honest), promised(window))
	}
	work.Wait()
	<-a.Done()
	<-b.Done()
	require.Less(t, time.Since(began), time.Minute, "it hangs")
	for _, c := range []net.Conn{near, far} {
		_ = c.Close() // the streams have ended
	}
	middle.Wait()
}

// carry copies what one side says behind its hello, changed by the script if it is hostile.
func carry(to, from *faultnet.Conn, script *mangle.Script, hostile bool) {
	defer func() { _ = to.CloseWrite() }()
	if _, err := io.CopyN(to, from, helloSize); err != nil || !hostile {
		_, _ = io.Copy(to, from)
		return
	}
	for {
		unit, err := frameShape.Read(from)
		if err != nil {
			return
		}
		r := script.Next(unit)
		time.Sleep(time.Duration(r.Pause) * time.Millisecond)
		for _, u := range r.Units {
			if _, err := to.Write(u); err != nil {
				return
			}
		}
		if r.Cut {
			to.Link().Cut()
			return
		}
	}
}

// useWhole writes records, and reads and acknowledges what comes, which must be in order.
func useWhole(t *testing.T, s *Stream, isHonest bool) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := range 30 {
			if _, err := s.WriteRecord(ctx, fmt.Append(nil, "record ", i)); err != nil {
				typedError(t, err)
				break
			}
		}
		typedError(t, s.Barrier(ctx))
		typedError(t, s.CloseWrite())
	})
	for next := uint64(1); ; next++ {
		r, err := s.ReadRecord(ctx)
		if err != nil {
			typedError(t, err)
			break
		}
		if isHonest {
			assert.Equal(t, next, r.Seq)
		}
		typedError(t, s.AckRecord(r.Seq))
	}
	writing.Wait()
	typedError(t, s.Close())
}

// typedError asserts that an error is one of this package, or the context's.
func typedError(t *testing.T, err error) {
	t.Helper()
	_, typed := errors.AsType[*Error](err)
	assert.True(t, err == nil || typed || err == io.EOF || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrClosed), "%v", err)
}
