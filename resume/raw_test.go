package resume

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// A raw is an accepting side by hand: a test reads as what goes over the carriers.
type raw struct {
	t     *testing.T
	opts  faultnet.LinkOptions
	dials chan net.Conn
}

// newRaw returns a Conn and the accepting side of it, with a buffer of so many bytes.
func newRaw(t *testing.T, opts faultnet.LinkOptions, o *Options, buffer uint32) (*Conn, *raw, net.Conn) {
	r := &raw{t: t, opts: opts, dials: make(chan net.Conn, 1)}
	accepted := make(chan net.Conn)
	go func() { accepted <- r.accept(hello{id: testID, resumeWindow: 1e6, buffer: buffer}) }()
	c, err := Dial(r.dial, o)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = c.Close()
		c.flow.Close(net.ErrClosed)
		<-c.Done()
	})
	return c, r, <-accepted
}

func (r *raw) dial(context.Context) (net.Conn, error) {
	a, b := faultnet.Pipe(r.opts)
	r.dials <- b
	return a, nil
}

// accept takes the next carrier and answers its hello with answer, which gets the kind and, of a RESUME, id and attempt.
func (r *raw) accept(answer hello) net.Conn {
	carrier := <-r.dials
	h, err := readHello(carrier)
	require.NoError(r.t, err)
	answer.kind, answer.attempt, answer.id = messageAccept, h.attempt, testID
	require.NoError(r.t, writeHello(carrier, answer))
	return carrier
}

// put sends a segment.
func (r *raw) put(carrier net.Conn, k kind, number uint64, data string) {
	_, err := carrier.Write(append(header{k, len(data), number}.append(nil), data...))
	require.NoError(r.t, err)
}

// want reads a segment and checks its header.
func (r *raw) want(carrier net.Conn, k kind, length int, number uint64) {
	r.t.Helper()
	b := make([]byte, headerSize+length)
	_, err := io.ReadFull(carrier, b[:headerSize])
	require.NoError(r.t, err)
	require.Equal(r.t, header{k, length, number}, headerOf(b))
	_, err = io.ReadFull(carrier, b[headerSize:])
	require.NoError(r.t, err)
}

// quiet checks that nothing is to be read.
func (r *raw) quiet(carrier net.Conn) {
	r.t.Helper()
	require.NoError(r.t, carrier.SetReadDeadline(time.Now().Add(time.Second)))
	n, err := carrier.Read(make([]byte, 1))
	require.Zero(r.t, n, "%v", err)
	require.NoError(r.t, carrier.SetReadDeadline(time.Time{}))
}

// Row: S4
func TestAskIsAnsweredAtOnceAndWhenAllIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r, carrier := newRaw(t, faultnet.LinkOptions{}, nil, minWindow)
		r.want(carrier, kindStart, 0, 0)
		r.put(carrier, kindStart, 0, "")
		r.put(carrier, kindData, 0, "0123456789")
		r.put(carrier, kindAsk, 0, "")
		r.want(carrier, kindData, 0, 0)
		_, err := io.ReadFull(c, make([]byte, 9))
		require.NoError(t, err)
		r.quiet(carrier)
		_, err = io.ReadFull(c, make([]byte, 1))
		require.NoError(t, err)
		r.want(carrier, kindData, 0, 10)
		r.put(carrier, kindAsk, 0, "abc") // with bytes: only then
		r.want(carrier, kindData, 0, 10)  // which only says that they have come
		r.quiet(carrier)
		_, err = io.ReadFull(c, make([]byte, 3))
		require.NoError(t, err)
		r.want(carrier, kindData, 0, 13)
	})
}

// Row: S4
func TestEachQuarterOfTheBufferIsToldUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r, carrier := newRaw(t, faultnet.LinkOptions{}, &Options{Window: 8 << 10}, minWindow)
		r.want(carrier, kindStart, 0, 0)
		r.put(carrier, kindStart, 0, "")
		r.put(carrier, kindData, 0, string(make([]byte, 6<<10)))
		r.want(carrier, kindData, 0, 0) // which only says that they have come
		_, err := io.ReadFull(c, make([]byte, 2<<10-1))
		require.NoError(t, err)
		r.quiet(carrier)
		_, err = io.ReadFull(c, make([]byte, 1))
		require.NoError(t, err)
		r.want(carrier, kindData, 0, 2<<10)
		_, err = io.ReadFull(c, make([]byte, 2<<10))
		require.NoError(t, err)
		r.want(carrier, kindData, 0, 4<<10)
	})
}

// What FIN has ended is acknowledged though nobody has read it: its sender may leave.
//
// Row: S-d
func TestFinIsAcknowledgedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, r, carrier := newRaw(t, faultnet.LinkOptions{}, nil, minWindow)
		r.want(carrier, kindStart, 0, 0)
		r.put(carrier, kindStart, 0, "")
		r.put(carrier, kindData, 0, "abc")
		r.put(carrier, kindFin, 0, "")
		r.want(carrier, kindData, 0, 4)
	})
}

// The other side's number can be lost with a carrier: who waits for it asks on the next.
//
// Row: S4, S-f
func TestWaitingWriteAsksOnEachNewCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r, carrier := newRaw(t, faultnet.LinkOptions{}, nil, minWindow)
		done := make(chan error, 1)
		go func() {
			_, err := c.Write(make([]byte, minWindow+1))
			done <- err
		}()
		r.want(carrier, kindStart, 0, 0)
		r.want(carrier, kindAsk, minWindow, 0)
		start := time.Now()
		require.NoError(t, carrier.Close()) // the answer is lost
		carrier = r.accept(hello{received: minWindow})
		r.want(carrier, kindStart, 0, minWindow)
		r.want(carrier, kindAsk, 0, 0)
		r.put(carrier, kindStart, 0, "")
		r.put(carrier, kindData, minWindow, "")
		require.NoError(t, <-done)
		r.want(carrier, kindData, 1, 0)
		require.Zero(t, time.Since(start), "no heartbeat had to help")
	})
}

// A carrier that sends again what came with its end may do so in pieces.
//
// Row: S3
func TestWhatComesAgainAfterTheEndIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r, carrier := newRaw(t, faultnet.LinkOptions{}, nil, minWindow)
		r.put(carrier, kindStart, 0, "")
		r.put(carrier, kindData, 0, "hello")
		r.put(carrier, kindFin, 0, "")
		synctest.Wait()
		require.NoError(t, carrier.Close())
		carrier = r.accept(hello{})
		r.put(carrier, kindStart, 0, "")
		again := append(header{kindData, 5, 0}.append(nil), "hello"...)
		again = header{kind: kindFin}.append(again)
		for _, b := range again {
			_, err := carrier.Write([]byte{b})
			require.NoError(t, err)
			synctest.Wait()
		}
		got, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, "hello", string(got))
		require.NoError(t, c.flow.Err())
		_, err = c.Write([]byte("the other direction lives"))
		require.NoError(t, err)
	})
}

// A STOP may be lost with the old carrier, and goes over the new one too.
//
// Row: S6
func TestStopIsSentOnEachNewCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r, first := newRaw(t, faultnet.LinkOptions{}, nil, minWindow)
		r.want(first, kindStart, 0, 0)
		require.NoError(t, c.CloseRead())
		r.want(first, kindStop, 0, 0)
		require.NoError(t, c.Reconnect())
		second := r.accept(hello{live: true})
		r.want(first, kindEnd, 0, 0)
		r.want(second, kindStart, 0, 0)
		r.want(second, kindStop, 0, 0)
		require.NoError(t, first.Close())
		r.want(second, kindAsk, 0, 0)
		require.NoError(t, second.Close())
		third := r.accept(hello{})
		r.want(third, kindStart, 0, 0)
		r.want(third, kindStop, 0, 0)
	})
}

// Row: S-d
func TestCloseEndsAWriteThatIsInTheCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _ := newRaw(t, faultnet.LinkOptions{Buffer: 256}, nil, 1<<20)
		synctest.Wait() // START has left: the Write is what sends
		done := make(chan error, 1)
		go func() {
			_, err := c.Write(make([]byte, 100<<10))
			done <- err
		}()
		synctest.Wait()
		start := time.Now()
		require.NoError(t, c.Close())
		<-done // with what error depends on how much was kept
		require.Zero(t, time.Since(start))
	})
}

// gated holds back its Writes until gate is closed.
type gated struct {
	net.Conn
	gate chan struct{}
}

func (g *gated) Write(p []byte) (int, error) {
	<-g.gate
	return g.Conn.Write(p)
}

// An attempt whose ACCEPT is slow to leave does not take the place of a later one.
//
// Row: S3
func TestAttemptThatIsOvertakenGetsNoCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		l, err := NewListener(h, nil)
		require.NoError(t, err)
		first, answer := send(t, h, hello{kind: messageNew, buffer: minWindow, resumeWindow: 1e6})
		s, err := l.Accept()
		require.NoError(t, err)

		x, y := faultnet.Pipe(faultnet.LinkOptions{})
		slow := &gated{Conn: y, gate: make(chan struct{})}
		require.NoError(t, writeHello(x, hello{kind: messageResume, id: answer.id, attempt: 1}))
		h.conns <- slow
		synctest.Wait()
		second, _ := send(t, h, hello{kind: messageResume, id: answer.id, attempt: 2})
		synctest.Wait()
		close(slow.gate)
		late, err := readHello(x)
		require.NoError(t, err)
		require.EqualValues(t, 1, late.attempt)
		_, err = x.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err, "it is closed")
		_, err = s.Write([]byte("x"))
		require.NoError(t, err)
		_, err = io.ReadFull(second, make([]byte, 2*headerSize+1))
		require.NoError(t, err, "the second lives")
		_, _, _, _ = first.Close(), second.Close(), l.Close(), s.Close()
		<-s.(*Conn).Done()
	})
}
