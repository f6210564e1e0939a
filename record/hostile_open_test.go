package record

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// opener is OpenConn or AcceptConn.
type opener = func(context.Context, net.Conn, *Options) (*Stream, error)

// opening is an OpenConn or AcceptConn with a peer made by hand.
type opening struct {
	t    *testing.T
	conn *faultnet.Conn // the peer's
	done chan struct{}
	s    *Stream
	err  error
}

func begun(t *testing.T, establish opener, ctx context.Context, opts *Options) *opening {
	near, far := faultnet.Pipe(faultnet.LinkOptions{})
	o := &opening{t: t, conn: far, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		o.s, o.err = establish(ctx, near, opts)
	}()
	return o
}

// says writes what the peer says, and returns what OpenConn or AcceptConn answers to that.
func (o *opening) says(wire []byte) (answer []byte) {
	_, err := o.conn.Write(wire)
	require.NoError(o.t, err)
	<-o.done
	answer, err = io.ReadAll(o.conn)
	require.NoError(o.t, err)
	return answer
}

// failed requires that there is no stream.
func (o *opening) failed(want error) {
	o.t.Helper()
	<-o.done
	require.Nil(o.t, o.s)
	require.ErrorIs(o.t, o.err, want)
	var e *Error
	require.True(o.t, errors.As(o.err, &e), "%T", o.err)
	require.Equal(o.t, "open", e.Op)
}

func TestAcceptConnRefusesWhatItCannotServe(t *testing.T) {
	set := func(change func(*hello)) []byte {
		h := rawHello(helloOpen)
		change(&h)
		return h.append(nil)
	}
	other := rawHello(helloOpen).append(nil)
	other[4] = 9
	for name, test := range map[string]struct {
		wire []byte
		err  error
		code Code
	}{
		"a stranger":               {[]byte("GET / HTTP/1.1\r\n\r\n"), ErrProtocol, codeProtocol},
		"another version":          {other, ErrVersion, codeVersion},
		"a window of nothing":      {set(func(h *hello) { h.records = 0 }), ErrProtocol, codeProtocol},
		"a log without a name":     {set(func(h *hello) { h.log = LogID{} }), ErrProtocol, codeProtocol},
		"a place in another log":   {set(func(h *hello) { h.known, h.applied = testKnown, 7 }), ErrHistory, codeHistory},
		"ACCEPT where OPEN is due": {rawHello(helloAccept).append(nil), ErrProtocol, codeProtocol},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := new(Registry)
			o := begun(t, AcceptConn, t.Context(), &Options{Registry: r})
			answer := o.says(test.wire)
			o.failed(test.err)
			require.Empty(t, r.Snapshots(), name)
			_, err := readHello(strings.NewReader(string(answer)), helloAccept)
			var e *Error
			require.ErrorAs(t, err, &e, name)
			require.True(t, e.Remote, name)
			require.Equal(t, test.code, e.Code, name)
			require.ErrorIs(t, err, test.err, name)
		})
	}
}

// Claim: record.ErrProtocol
func TestOpenConnEndsWithWhatThePeerAnswers(t *testing.T) {
	lie := rawHello(helloAccept)
	lie.known, lie.applied = testKnown, 7
	none := rawHello(helloAccept)
	none.largest = 0
	for name, test := range map[string]struct {
		wire []byte
		err  error
		code int // of the CLOSE that follows OPEN; -1: none
	}{
		"REFUSE, busy":              {appendRefusal(nil, codeBusy, "later"), ErrBusy, -1},
		"REFUSE, not accepted":      {appendRefusal(nil, codeNotAccepted, "no"), ErrNotTaken, -1},
		"REFUSE, done":              {appendRefusal(nil, codeDone, "a lie"), ErrProtocol, int(codeProtocol)},
		"REFUSE, too long":          {append([]byte("\xf5plc\x01\x13\x00\x00\x00\x00\x00\x07\xff\xff"), letters(2000)...), ErrProtocol, int(codeProtocol)},
		"a place in no log of ours": {lie.append(nil), ErrHistory, int(codeHistory)},
		"records of no byte":        {none.append(nil), ErrProtocol, int(codeProtocol)},
		"OPEN, too":                 {rawHello(helloOpen).append(nil), ErrProtocol, int(codeProtocol)},
		"a stranger":                {[]byte("SSH-2.0-OpenSSH"), ErrProtocol, int(codeProtocol)},
	} {
		synctest.Test(t, func(t *testing.T) {
			o := begun(t, OpenConn, t.Context(), nil)
			answer := o.says(test.wire)
			o.failed(test.err)
			_, err := consumeHello(answer[:helloSize])
			require.NoError(t, err, name)
			if answer = answer[helloSize:]; test.code < 0 {
				require.Empty(t, answer, name)
				return
			}
			h, err := consumeHeader(answer[:headerSize], 0)
			require.NoError(t, err, name)
			require.Equal(t, kindClose, h.kind, name)
			code, _ := consumeClose(answer[headerSize:])
			require.Equal(t, test.code, int(code), name)
		})
	}
}

// A hello that never comes, or never whole, or that nobody takes, is waited for no longer than it says.
// Claim: record.Options.HandshakeTimeout
func TestOptionHandshakeTimeout(t *testing.T) {
	refusal := appendRefusal(nil, codeBusy, "later")
	for timeout, want := range map[time.Duration]time.Duration{0: 5 * time.Second, time.Second: time.Second} {
		for peer, establish := range map[helloKind]opener{
			helloAccept: OpenConn, helloOpen: AcceptConn,
		} {
			whole := rawHello(peer).append(nil)
			for _, wire := range [][]byte{nil, whole[:4], whole[:8], whole[:79], refusal[:10], refusal[:18]} {
				if len(wire) > 8 && wire[5] == byte(helloRefuse) && peer == helloOpen {
					continue
				}
				synctest.Test(t, func(t *testing.T) {
					o := begun(t, establish, t.Context(), &Options{HandshakeTimeout: timeout})
					start := time.Now()
					_, err := o.conn.Write(wire)
					require.NoError(t, err)
					o.failed(context.DeadlineExceeded)
					require.Equal(t, want, time.Since(start))
					_, err = o.conn.Write([]byte("x"))
					require.Error(t, err, "the conn is closed")
				})
			}
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe() // takes nothing
				start := time.Now()
				_, err := establish(t.Context(), near, &Options{HandshakeTimeout: timeout})
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, want, time.Since(start))
				_, err = far.Write([]byte("x"))
				require.ErrorIs(t, err, io.ErrClosedPipe)
			})
		}
	}
}

// The ctx of the call ends the wait for the hello too.
func TestOpeningEndsWithItsContext(t *testing.T) {
	for _, establish := range []opener{OpenConn, AcceptConn} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			o := begun(t, establish, ctx, nil)
			synctest.Wait()
			cancel()
			o.failed(context.Canceled)
			var e *Error
			require.ErrorAs(t, o.err, &e)
			require.False(t, e.Timeout())
		})
	}
}

// A hello at the very edge of what may be said makes a stream.
func TestHellosAtTheEdgeAreTaken(t *testing.T) {
	for _, change := range []func(*hello){
		func(h *hello) { h.records, h.bytes, h.largest, h.caps = 1, 6, 1, math.MaxUint32 },
		func(h *hello) { h.records, h.bytes, h.largest, h.caps = maxWindow, maxBytes, maxBytes-5, 0 },
	} {
		synctest.Test(t, func(t *testing.T) {
			p := withRaw(t, nil, change)
			p.write(1)
			require.Equal(t, rawBatch(1, "\x00")[headerSize:], p.expect(kindBatch))
			p.send(appendSeq(nil, kindAck, 1))
			require.NoError(t, p.s.Barrier(t.Context()))
		})
	}
	synctest.Test(t, func(t *testing.T) { // the last number that there is
		p := withRaw(t, nil, func(h *hello) { h.first, h.next = math.MaxUint64, math.MaxUint64 })
		p.send(rawBatch(math.MaxUint64, "last"), rawBatch(0, "over"))
		_, _ = p.s.ReadRecord(t.Context())
		_ = p.s.AckRecord(math.MaxUint64)
		require.NoError(t, p.conn.CloseWrite())
		<-p.s.Done()
	})
}
