package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// pipeStream is a stream of a net.Pipe, which knows no half close.
type pipeStream struct{ net.Conn }

func (pipeStream) CloseWrite() error        { return nil }
func (s pipeStream) Reset(codes.Code) error { return s.Close() }

// controlled runs f with a control and the other end of its stream.
func controlled(t *testing.T, f func(t *testing.T, c *control, theirs net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		f(t, newControl(pipeStream{ours}), theirs)
		_, _ = theirs.Close(), ours.Close()
	})
}

// tellThem writes a frame at the other end.
func tellThem(t *testing.T, theirs net.Conn, kind wire.Kind, body func([]byte) []byte) {
	t.Helper()
	_, err := theirs.Write(wire.AppendFrame(nil, kind, false, body))
	require.NoError(t, err)
}

// closeBoth closes a control whose other end has gone.
func closeBoth(c *control, theirs net.Conn) {
	_ = theirs.Close()
	c.end()
	_ = c.st.Close()
}

func TestTheLastWordsAreWaitedForWhateverInterrupts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c, peer := newControl(pipeStream{ours}), wire.NewReader(theirs)
		c.interrupt(context.Canceled)
		over := make(chan struct{})
		go func() {
			defer close(over)
			c.abort(wire.Why{Code: string(CodeCanceled)})
		}()
		f, err := peer.Read()
		require.NoError(t, err)
		require.Equal(t, wire.KindAbort, f.Kind)
		synctest.Wait()
		c.interrupt(context.Canceled) // what has stopped it may say so several times
		synctest.Wait()
		select {
		case <-over:
			t.Fatal("the stream was closed before the peer had ended its side")
		default:
		}
		require.NoError(t, theirs.Close())
		<-over
	})
}

func TestFramesLeaveInTheirOrderAndWaitForNobody(t *testing.T) {
	controlled(t, func(t *testing.T, c *control, theirs net.Conn) {
		for i := range uint32(100) { // nobody reads yet
			require.NoError(t, c.send(wire.KindWantRoot, false, func(b []byte) []byte { return wire.AppendFile(b, i) }))
		}
		peer := wire.NewReader(theirs)
		for i := range uint32(100) {
			f, err := peer.Read()
			require.NoError(t, err)
			require.Equal(t, i, wire.ConsumeFile(f.Body))
		}
		closeBoth(c, theirs)
		require.ErrorIs(t, c.send(wire.KindAccept, false, nil), net.ErrClosed)
	})
}

func TestAPeerThatDoesNotReadIsGivenUp(t *testing.T) {
	controlled(t, func(t *testing.T, c *control, theirs net.Conn) {
		large := func(b []byte) []byte { return append(b, make([]byte, wire.MaxBody)...) }
		var err error
		sent := 0
		for ; err == nil; sent += wire.MaxBody {
			err = c.send(wire.KindManifest, false, large)
		}
		require.Equal(t, CodeProtocol, CodeOf(err))
		require.LessOrEqual(t, sent, 2*hardQueue, "what waits, and what the writer has taken")
		_, err = c.read()
		require.Error(t, err, "its reader finds out")
		require.Equal(t, errUnread, c.cause(err))
		closeBoth(c, theirs)
	})
}

func TestALongAnswerWaitsForRoom(t *testing.T) {
	controlled(t, func(t *testing.T, c *control, theirs net.Conn) {
		large := func(b []byte) []byte { return append(b, make([]byte, wire.MaxBody)...) }
		sent, over := 0, make(chan error)
		go func() {
			for range 100 {
				if err := c.sendSlow(wire.KindManifest, false, large); err != nil {
					over <- err
					return
				}
				sent++
			}
			over <- nil
		}()
		synctest.Wait()
		require.LessOrEqual(t, sent, 2*softQueue/wire.MaxBody+2, "what waits, and what the writer has taken")
		peer := wire.NewReader(theirs)
		for range 50 {
			_, err := peer.Read()
			require.NoError(t, err)
		}
		synctest.Wait()
		require.GreaterOrEqual(t, sent, 50)
		why := &Error{Code: CodeCanceled}
		c.interrupt(why)
		require.Equal(t, error(why), <-over, "and does not wait when it is stopped")
		require.Equal(t, error(why), c.sendSlow(wire.KindManifest, false, large))
		require.NoError(t, c.send(wire.KindAccept, false, nil), "a last word may be said")
		closeBoth(c, theirs)
	})
}

func TestAReadThatTakesTooLongIsAStallAndLosesNothing(t *testing.T) {
	controlled(t, func(t *testing.T, c *control, theirs net.Conn) {
		began := time.Now()
		go func() {
			b := wire.AppendFrame(nil, wire.KindWantRoot, false, func(b []byte) []byte { return wire.AppendFile(b, 7) })
			_, _ = theirs.Write(b[:5])
			time.Sleep(time.Minute)
			_, _ = theirs.Write(b[5:])
		}()
		_, err := c.readWithin(10 * time.Second)
		require.Equal(t, CodeStalled, CodeOf(err))
		require.Equal(t, 10*time.Second, time.Since(began))
		f, err := c.readWithin(time.Hour)
		require.NoError(t, err)
		require.Equal(t, uint32(7), wire.ConsumeFile(f.Body), "the half that had come counts")
		closeBoth(c, theirs)
	})
}

func TestWhatThePeerEndsWithIsItsError(t *testing.T) {
	controlled(t, func(t *testing.T, c *control, theirs net.Conn) {
		go tellThem(t, theirs, wire.KindAbort, wire.Why{Code: "no_space", Text: "full"}.Append)
		_, err := c.read()
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, &Error{Code: CodeNoSpace, Remote: true, Text: "full"}, e)
		go func() {
			_, _ = theirs.Write(wire.AppendFrame(nil, wire.KindAbort, false, func(b []byte) []byte { return append(b, 0, 0) }))
		}()
		_, err = c.read()
		require.Equal(t, CodeProtocol, CodeOf(err), "an ABORT that says nothing")
		require.NoError(t, theirs.Close())
		_, err = c.read()
		require.Equal(t, io.ErrUnexpectedEOF, err, "an end without a word is a loss")
		closeBoth(c, theirs)
	})
}

func TestTheFirstInterruptionCounts(t *testing.T) {
	controlled(t, func(t *testing.T, c *control, theirs net.Conn) {
		other := errors.New("other")
		require.Equal(t, other, c.cause(other), "nothing has stopped it")
		first := &Error{Code: CodeStalled}
		c.interrupt(first)
		c.interrupt(&Error{Code: CodeLost})
		_, err := c.read()
		require.Error(t, err)
		require.Equal(t, error(first), c.cause(err))
		c.hurry(time.Hour) // which no longer has any effect
		_, err = c.read()
		require.Error(t, err)
		closeBoth(c, theirs)
	})
}

// What is said to the peer when a transfer ends.
func TestTheEndIsSaidToWhoDoesNotKnowIt(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code string // "" if nothing is said
	}{
		"success":            {nil, ""},
		"of the peer":        {said(wire.Why{Code: "io"}), ""},
		"a lost connection":  {&Error{Code: CodeLost}, ""},
		"an unknown failure": {io.ErrUnexpectedEOF, ""},
		"canceled":           {&Error{Code: CodeCanceled, Text: "it was stopped"}, "canceled"},
		"the disk":           {&Error{Area: AreaDestination, Code: CodeIO}, "io"},
		"a breach":           {wire.Breachf("x"), "protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			controlled(t, func(t *testing.T, ctl *control, theirs net.Conn) {
				heard := make(chan string)
				go func() {
					peer := wire.NewReader(theirs)
					code := ""
					for {
						f, err := peer.Read()
						if err != nil {
							break
						}
						if f.Kind == wire.KindAbort {
							w, _ := wire.ConsumeWhy(f.Body)
							code = w.Code
							_ = theirs.Close()
						}
					}
					heard <- code
				}()
				ctl.close(c.err)
				ctl.close(errors.New("of no effect"))
				require.Equal(t, c.code, <-heard)
			})
		})
	}
}

func TestAPeerThatDoesNotReadTheEndIsNotWaitedForLong(t *testing.T) {
	controlled(t, func(t *testing.T, c *control, theirs net.Conn) {
		began := time.Now()
		c.close(&Error{Code: CodeCanceled})
		require.LessOrEqual(t, time.Since(began), 2*linger)
		require.Error(t, c.send(wire.KindAccept, false, nil))
	})
}

func TestSilenceIsListenedTo(t *testing.T) {
	why := wire.Why{Code: "canceled"}
	for name, v := range map[string]struct {
		do   func(theirs net.Conn)
		code Code
		gone bool
	}{
		"silence":   {do: func(net.Conn) {}},
		"an ABORT":  {func(c net.Conn) { _, _ = c.Write(wire.AppendFrame(nil, wire.KindAbort, false, why.Append)) }, CodeCanceled, true},
		"any frame": {func(c net.Conn) { _, _ = c.Write(wire.AppendFrame(nil, wire.KindAccept, false, nil)) }, CodeProtocol, true},
		"the end":   {func(c net.Conn) { _ = c.Close() }, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			controlled(t, func(t *testing.T, c *control, theirs net.Conn) {
				gone := false
				over := c.listen(func() { gone = true })
				go v.do(theirs)
				synctest.Wait()
				require.Equal(t, v.gone, gone)
				err := over()
				require.Equal(t, v.gone, err != nil)
				require.Equal(t, v.code, CodeOf(err))
				if !v.gone {
					go tellThem(t, theirs, wire.KindAccept, nil)
					f, err := c.read()
					require.NoError(t, err, "it goes on afterwards")
					require.Equal(t, wire.KindAccept, f.Kind)
				}
				closeBoth(c, theirs)
			})
		})
	}
}

func TestAStreamThatCannotBeWrittenToFailsAllThatIsSent(t *testing.T) {
	controlled(t, func(t *testing.T, c *control, theirs net.Conn) {
		require.NoError(t, theirs.Close())
		require.NoError(t, c.send(wire.KindAccept, false, nil), "nobody knows yet")
		synctest.Wait()
		require.ErrorIs(t, c.send(wire.KindAccept, false, nil), io.ErrClosedPipe)
		require.ErrorIs(t, c.sendSlow(wire.KindAccept, false, nil), io.ErrClosedPipe)
		c.end()
	})
}

func TestAFrameIsNotCutByTheOneBefore(t *testing.T) {
	controlled(t, func(t *testing.T, c *control, theirs net.Conn) {
		go func() {
			b := wire.AppendFrame(nil, wire.KindOffer, false, func(b []byte) []byte { return append(b, "long name"...) })
			b = wire.AppendFrame(b, wire.KindOffer, true, func(b []byte) []byte { return append(b, "x"...) })
			for i := range b { // one byte at a time
				_, _ = theirs.Write(b[i : i+1])
			}
		}()
		f, err := c.read()
		require.NoError(t, err)
		require.True(t, bytes.Equal([]byte("long name"), f.Body))
		f, err = c.read()
		require.NoError(t, err)
		require.Equal(t, "x", string(f.Body))
		require.True(t, f.Flag)
		closeBoth(c, theirs)
	})
}
