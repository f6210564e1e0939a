package resume

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// scripted returns a dial whose carriers are answered by script, and a count of those that are open on the dialing side.
func scripted(script func(net.Conn)) (dialFunc, *atomic.Int32) {
	open := new(atomic.Int32)
	return func(context.Context) (net.Conn, error) {
		a, b := faultnet.Pipe(faultnet.LinkOptions{})
		open.Add(1)
		go func() {
			script(b)
			_ = b.Close()
		}()
		return &countedConn{Conn: a, open: open}, nil
	}, open
}

type countedConn struct {
	net.Conn
	open   *atomic.Int32
	closed atomic.Bool
}

func (c *countedConn) Close() error {
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}

// answering reads the hello and sends answer.
func answering(answer []byte) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, helloSize))
		_, _ = c.Write(answer)
		_, _ = io.Copy(io.Discard, c)
	}
}

// Row: S-g
func TestDialIsNotBlockedByASilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, open := scripted(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		start := time.Now()
		_, err := Dial(dial, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var ne net.Error
		require.ErrorAs(t, err, &ne)
		require.True(t, ne.Timeout())
		require.Equal(t, 5*time.Second, time.Since(start))
		require.Zero(t, open.Load(), "the carrier is closed")

		start = time.Now()
		_, err = Dial(dial, &Options{HandshakeTimeout: time.Second})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err = DialContext(ctx, dial, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Zero(t, open.Load())
	})
}

// A dial that does not look at its context holds up nobody, and what it brings too late is closed.
//
// Row: S-g
func TestDialIsNotBlockedByItsDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late, end := faultnet.Pipe(faultnet.LinkOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := DialContext(ctx, func(context.Context) (net.Conn, error) {
			time.Sleep(time.Minute)
			return late, nil
		}, nil)
		require.ErrorIs(t, err, context.Canceled)
		time.Sleep(time.Hour)
		_, err = end.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
	})
}

// Row: S-g, S2
func TestFirstDialFailsWithItsError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := Dial(func(context.Context) (net.Conn, error) {
			return nil, errRefused
		}, nil)
		require.ErrorIs(t, err, errRefused)

		version := hello{kind: messageRefuse, code: refuseVersion}.append(nil)
		version[4] = 2
		for name, test := range map[string]struct {
			answer []byte
			want   error
		}{
			"nothing":    {nil, io.ErrUnexpectedEOF},
			"half":       {goldenHellos[2].h.append(nil)[:20], io.ErrUnexpectedEOF},
			"a stranger": {[]byte("HTTP/1.1 400 Bad Request\r\n"), ErrStranger},
			"busy":       {hello{kind: messageRefuse, code: refuseBusy}.append(nil), ErrBusy},
			"version":    {version, ErrVersion},
			"NEW":        {goldenHellos[0].h.append(nil), ErrProtocol},
			"another":    {goldenHellos[3].h.append(nil), ErrProtocol},
			"2^62":       {hello{kind: messageAccept, id: testID, buffer: minWindow, received: 1 << 62}.append(nil), ErrProtocol},
		} {
			dial, open := scripted(func(c net.Conn) {
				_, _ = io.ReadFull(c, make([]byte, helloSize))
				_, _ = c.Write(test.answer)
			})
			_, err := Dial(dial, nil)
			require.ErrorIs(t, err, test.want, name)
			require.NotErrorIs(t, err, io.EOF, name)
			synctest.Wait()
			require.Zero(t, open.Load(), name)
		}
	})
}

// Row: S-e
func TestHostileAnswersToAResumeEndTheConn(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*hello)
		want   error
	}{
		"2^62 bytes":         {func(h *hello) { h.received = 1 << 62 }, ErrProtocol},
		"another conn":       {func(h *hello) { h.id[0]++ }, ErrProtocol},
		"another attempt":    {func(h *hello) { h.attempt++ }, ErrProtocol},
		"live for no reason": {func(h *hello) { h.live = true }, ErrProtocol},
		"unknown":            {func(h *hello) { *h = hello{kind: messageRefuse, code: refuseUnknown} }, ErrUnknown},
	} {
		synctest.Test(t, func(t *testing.T) {
			first := true
			dial, open := scripted(func(c net.Conn) {
				h, err := readHello(c)
				require.NoError(t, err)
				answer := hello{kind: messageAccept, id: testID, attempt: h.attempt}
				if first {
					first = false
					answer.buffer, answer.resumeWindow = minWindow, 1e6
				} else {
					test.change(&answer)
				}
				require.NoError(t, writeHello(c, answer))
			})
			start := time.Now()
			c, err := Dial(dial, nil)
			require.NoError(t, err)
			<-c.Done()
			_, err = c.Read(make([]byte, 1))
			require.ErrorIs(t, err, test.want, name)
			require.ErrorIs(t, err, ErrLost, name)
			require.NotErrorIs(t, err, io.EOF, name)
			require.Less(t, time.Since(start), time.Second, "%s: it does not try again", name)
			synctest.Wait()
			require.Zero(t, open.Load(), name)
		})
	}
}

// A segment that claims the impossible ends the conn with a typed error, and nothing is allocated for it.
//
// Row: S-e
// Claim: resume.ErrProtocol
func TestHostileSegmentsEndTheConn(t *testing.T) {
	start := header{kind: kindStart}.append(nil)
	for name, wire := range map[string][]byte{
		"2^62 acknowledged":   header{kind: kindData, number: 1 << 62}.append(start),
		"DATA before START":   header{kind: kindData}.append(nil),
		"a kind nobody knows": header{kind: 9}.append(start),
		"a long FIN":          header{kind: kindFin, length: maxLength}.append(start),
		"END elsewhere":       header{kind: kindEnd, number: 5}.append(start),
		"bytes after FIN":     append(header{kind: kindData, length: 1}.append(header{kind: kindFin}.append(start)), 'x'),
		"a second FIN":        header{kind: kindFin}.append(header{kind: kindFin}.append(start)),
		"more than the room":  append(header{kind: kindData, length: minWindow + 1}.append(start), make([]byte, minWindow+1)...),
	} {
		synctest.Test(t, func(t *testing.T) {
			answer := hello{kind: messageAccept, id: testID, buffer: minWindow, resumeWindow: 1e6}.append(nil)
			dials := 0
			dial, _ := scripted(func(c net.Conn) {
				dials++
				answering(append(answer, wire...))(c)
			})
			c, err := Dial(dial, &Options{Window: minWindow})
			require.NoError(t, err)
			<-c.Done()
			require.Equal(t, 1, dials, name)
			_, err = io.ReadAll(c)
			if err != nil {
				require.ErrorIs(t, err, ErrProtocol, name)
			}
			_, err = c.Write([]byte("x"))
			require.ErrorIs(t, err, ErrProtocol, name)
		})
	}
}

// A START beyond what was received is a gap: the carrier is lost, the conn is not.
//
// Row: S-e, S3
func TestGapLosesTheCarrierOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		dial, _ := scripted(func(c net.Conn) {
			h, err := readHello(c)
			require.NoError(t, err)
			answer := hello{kind: messageAccept, id: testID, attempt: h.attempt}
			at := header{kind: kindStart, number: 1 << 62}
			if tries == 0 {
				answer.buffer, answer.resumeWindow = minWindow, 1e6
			}
			if tries++; tries == 3 {
				at.number = 0
			}
			require.NoError(t, writeHello(c, answer))
			_, _ = c.Write(append(header{kind: kindData, length: 2}.append(at.append(nil)), "ok"...))
			_, _ = io.Copy(io.Discard, c)
		})
		c, err := Dial(dial, nil)
		require.NoError(t, err)
		got := make([]byte, 2)
		_, err = io.ReadFull(c, got)
		require.NoError(t, err)
		require.Equal(t, "ok", string(got))
		require.Equal(t, 3, tries)
		require.NoError(t, c.Close())
		c.flow.Close(net.ErrClosed)
		<-c.Done()
	})
}

func TestDialKeepsTheValuesOfItsContextAndNotItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		h := newHub()
		l, err := NewListener(h, nil)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		var values []any
		c, err := DialContext(ctx, func(ctx context.Context) (net.Conn, error) {
			values = append(values, ctx.Value(key{}))
			return h.dial(ctx)
		}, nil)
		require.NoError(t, err)
		cancel()
		link, _ := h.newest()
		link.Cut()
		s, err := l.Accept()
		require.NoError(t, err)
		say(t, c, s, "resumed")
		require.Equal(t, []any{"value", "value"}, values)
		_, _, _ = c.Close(), s.Close(), l.Close()
		<-c.Done()
		<-s.(*Conn).Done()
	})
}
