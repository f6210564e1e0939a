package record

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

var (
	testLog   = LogID{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}
	testKnown = LogID{0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xbb, 0xbc, 0xbd, 0xbe, 0xbf}
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return b
}

// rawHello is what a peer made by hand says of itself.
func rawHello(k helloKind) hello {
	return hello{kind: k, caps: capBatchAck, records: 1 << 16, bytes: 4 << 20, largest: 1 << 20, log: testLog, first: 1, next: 1}
}

// rawBatch returns a BATCH of payloads, without an acknowledgement.
func rawBatch(first uint64, payloads ...string) []byte {
	return rawBatchAck(batch{first: first}, payloads...)
}

// rawBatchAck is rawBatch with what b says; count is that of payloads when b has none.
func rawBatchAck(b batch, payloads ...string) []byte {
	records := make([]byte, batchRoomAck)
	for _, p := range payloads {
		records = appendRecord(records, []byte(p))
	}
	if b.count == 0 {
		b.count = len(payloads)
	}
	n := putBatch(records[:batchRoomAck], b, len(records)-batchRoomAck)
	return records[batchRoomAck-n:]
}

// A rawPeer is the other side of a stream, made by hand.
type rawPeer struct {
	t    *testing.T
	conn *faultnet.Conn
	s    *Stream // that it talks to
}

// withRaw returns a stream that has accepted a peer made by hand, which change, if not nil, has say something else. It is for
// bubbles.
func withRaw(t *testing.T, opts *Options, change func(*hello)) *rawPeer {
	t.Helper()
	near, far := faultnet.Pipe(faultnet.LinkOptions{Buffer: 16 << 20})
	h := rawHello(helloOpen)
	if change != nil {
		change(&h)
	}
	p := &rawPeer{t: t, conn: far}
	p.send(h.append(nil))
	var err error
	p.s, err = AcceptConn(t.Context(), near, opts)
	require.NoError(t, err)
	_, err = readHello(far, helloAccept)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = far.Close()
		_ = p.s.Close()
		<-p.s.Done()
	})
	return p
}

// send writes frames, and waits until the stream has nothing more to do for now.
func (p *rawPeer) send(frames ...[]byte) {
	p.t.Helper()
	for _, f := range frames {
		_, err := p.conn.Write(f)
		require.NoError(p.t, err)
	}
	if p.s != nil {
		synctest.Wait()
	}
}

// write has the stream write records of these sizes.
func (p *rawPeer) write(sizes ...int) {
	p.t.Helper()
	for _, n := range sizes {
		_, err := p.s.WriteRecord(p.t.Context(), make([]byte, n))
		require.NoError(p.t, err)
	}
	synctest.Wait()
}

// read has the stream's application read n records.
func (p *rawPeer) read(n int) {
	p.t.Helper()
	for range n {
		_, err := p.s.ReadRecord(p.t.Context())
		require.NoError(p.t, err)
	}
}

// next returns the next frame that the stream has sent.
func (p *rawPeer) next() (header, []byte, error) {
	b := make([]byte, headerSize)
	_ = p.conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(p.conn, b); err != nil {
		return header{}, nil, err
	}
	h, err := consumeHeader(b, maxBytes)
	require.NoError(p.t, err, "%x", b)
	body := make([]byte, h.length)
	_, err = io.ReadFull(p.conn, body)
	return h, body, err
}

// expect returns the body of the next frame, which is of kind k.
func (p *rawPeer) expect(k kind) []byte {
	p.t.Helper()
	h, body, err := p.next()
	require.NoError(p.t, err)
	require.Equal(p.t, k, h.kind, "%v", h.kind)
	return body
}

// skipTo returns the body of the next frame of kind k.
func (p *rawPeer) skipTo(k kind) []byte {
	p.t.Helper()
	for {
		h, body, err := p.next()
		require.NoError(p.t, err)
		if h.kind == k {
			return body
		}
	}
}

// number returns what the next frame, an ACK, REWIND or END, says.
func (p *rawPeer) number(k kind) uint64 {
	p.t.Helper()
	return binary.BigEndian.Uint64(p.expect(k))
}

// told returns the code and text of the CLOSE that the stream ends with; -1 when it ends without one.
func (p *rawPeer) told() (code int, text string) {
	p.t.Helper()
	code = -1
	for {
		h, body, err := p.next()
		if err != nil {
			require.ErrorIs(p.t, err, io.EOF)
			return code, text
		}
		require.Equal(p.t, -1, code, "%v behind CLOSE", h.kind)
		if h.kind == kindClose {
			c, words := consumeClose(body)
			code, text = int(c), words
		}
	}
}

// breaks requires that the stream has ended because the peer broke the protocol: everyone learns it, the peer too.
func (p *rawPeer) breaks(because string) {
	p.t.Helper()
	code, text := p.told()
	require.Equal(p.t, int(codeProtocol), code)
	require.Contains(p.t, text, because)
	p.ended(ErrProtocol)
	require.ErrorContains(p.t, p.s.Err(), because)
}

// ended requires that the stream has ended with want, whatever is called.
func (p *rawPeer) ended(want error) {
	p.t.Helper()
	synctest.Wait()
	select {
	case <-p.s.Done():
	default:
		require.FailNow(p.t, "not done")
	}
	ctx := p.t.Context()
	_, read := p.s.ReadRecord(ctx)
	_, write := p.s.WriteRecord(ctx, []byte("x"))
	for op, err := range map[string]error{
		"": p.s.Err(), "read": read, "write": write, "ack": p.s.AckRecord(1), "fail": p.s.Fail(1, 1, true, ""),
		"resend": p.s.Resend(), "close write": p.s.CloseWrite(),
	} {
		require.ErrorIs(p.t, err, want, op)
		var e *Error
		require.True(p.t, errors.As(err, &e), "%s: %T", op, err)
		if op != "" {
			require.Equal(p.t, op, e.Op)
		}
	}
}

// within returns a ctx that ends after d.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// twoOn returns both ends of a stream over a link in memory.
func twoOn(t *testing.T, open, accept *Options) (a, b *Stream) {
	t.Helper()
	near, far := faultnet.Pipe(faultnet.LinkOptions{})
	accepted := make(chan *Stream, 1)
	go func() {
		s, _ := AcceptConn(context.Background(), far, accept)
		accepted <- s
	}()
	a, err := OpenConn(t.Context(), near, open)
	require.NoError(t, err)
	b = <-accepted
	require.NotNil(t, b)
	t.Cleanup(func() {
		_ = a.Close()
		_ = b.Close()
	})
	return a, b
}

func newLink() (a, b *faultnet.Conn) { return faultnet.Pipe(faultnet.LinkOptions{}) }
