package resume

import (
	"bytes"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// byteConn is a carrier that brings bytes, ends, and takes whatever is written.
type byteConn struct {
	net.Conn
	r *bytes.Reader
}

func (c *byteConn) Read(p []byte) (int, error)       { return c.r.Read(p) }
func (c *byteConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *byteConn) Close() error                     { return nil }
func (c *byteConn) SetWriteDeadline(time.Time) error { return nil }
func (c *byteConn) LocalAddr() net.Addr              { return nil }
func (c *byteConn) RemoteAddr() net.Addr             { return nil }

// Whatever a carrier brings: no panic, no hang, no byte from nowhere, and no more kept than has come.
//
// Row: S-e
func FuzzConnRead(f *testing.F) {
	start := header{kind: kindStart}.append(nil)
	text := append(header{kind: kindData, length: 5}.append(start), "hello"...)
	f.Add(text, []byte("x"))
	f.Add(append(header{kind: kindAsk, length: 5, number: 1}.append(start), "hello"...), []byte{})
	f.Add(header{kind: kindFin}.append(bytes.Clone(text)), header{kind: kindData}.append(start))
	f.Add(header{kind: kindEnd, number: 5}.append(bytes.Clone(text)), header{kind: kindStart, number: 5}.append(nil))
	f.Add(header{kind: kindStop}.append(start), text)
	f.Add(header{kind: kindData, length: maxLength, number: 1 << 62}.append(start), header{kind: kindStart, number: 1 << 62}.append(nil))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		synctest.Test(t, func(t *testing.T) {
			o := (&Options{Window: minWindow, CloseTimeout: -1}).withDefaults()
			c := newConn(t.Context(), &o, hello{kind: messageAccept, id: testID, resumeWindow: 1e6, buffer: minWindow})
			c.start()
			total := 0
			for _, wire := range [][]byte{one, two} {
				_, _ = c.Write([]byte("hi"))
				_ = c.attach(&byteConn{r: bytes.NewReader(wire)}, 0, false)
				total += len(wire)
				synctest.Wait()
			}
			received, _ := c.flow.Received()
			require.LessOrEqual(t, received, uint64(total))
			c.flow.Lock()
			require.LessOrEqual(t, c.in.Len(), min(total, minWindow))
			c.flow.Unlock()
			require.NoError(t, c.Close())
			c.flow.Close(net.ErrClosed)
			<-c.Done()
		})
	})
}
