package resume

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// send puts a hello on a new carrier of h, and returns the answer to it.
func send(t *testing.T, h *hub, say hello) (net.Conn, hello) {
	t.Helper()
	c, err := h.dial(t.Context())
	require.NoError(t, err)
	require.NoError(t, writeHello(c, say))
	answer, err := readHello(c)
	require.NoError(t, err)
	return c, answer
}

// Row: S2, S-e
func TestListenerRefusesHostileHellos(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil, nil)
		say(t, p.client, p.server, "one")
		id := p.client.id
		version := goldenHellos[0].h.append(nil)
		version[4] = 7
		for name, test := range map[string]struct {
			wire []byte
			want refusal // 0: closed without a word
		}{
			"a stranger":   {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n                    "), 0},
			"version 7":    {append(version, "something longer"...), refuseVersion},
			"ACCEPT":       {goldenHellos[2].h.append(nil), refuseProtocol},
			"unknown id":   {hello{kind: messageResume, id: testID, attempt: 1}.append(nil), refuseUnknown},
			"2^62 bytes":   {hello{kind: messageResume, id: id, attempt: 1, received: 1 << 62}.append(nil), refuseProtocol},
			"attempt 0":    {hello{kind: messageResume, id: id}.append(nil), refuseProtocol},
			"a small room": {hello{kind: messageNew, buffer: 1}.append(nil), refuseProtocol},
		} {
			c, err := p.dial(t.Context())
			require.NoError(t, err)
			_, err = c.Write(test.wire)
			require.NoError(t, err)
			answer, err := readHello(c)
			if test.want == 0 {
				require.ErrorIs(t, err, io.ErrUnexpectedEOF, name)
			} else {
				require.NoError(t, err, name)
				require.Equal(t, hello{kind: messageRefuse, code: test.want}, answer, name)
			}
			require.NoError(t, c.Close())
		}
		say(t, p.server, p.client, "none of that has touched the conn")
		require.Equal(t, "connected ", p.heard.text())
	})
}

// Row: S3
func TestLateHelloOfAnOlderAttemptIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		l, err := NewListener(h, nil)
		require.NoError(t, err)
		first, answer := send(t, h, hello{kind: messageNew, buffer: minWindow, resumeWindow: 1e6})
		s, err := l.Accept()
		require.NoError(t, err)
		second, answer5 := send(t, h, hello{kind: messageResume, id: answer.id, attempt: 5})
		require.Equal(t, hello{kind: messageAccept, id: answer.id, attempt: 5}, answer5)
		for _, attempt := range []uint32{1, 4, 5} {
			c, refused := send(t, h, hello{kind: messageResume, id: answer.id, attempt: attempt})
			require.Equal(t, refuseStale, refused.code, "%d", attempt)
			require.NoError(t, c.Close())
		}
		_, err = s.Write([]byte("x"))
		require.NoError(t, err)
		got := make([]byte, 2*headerSize+1)
		_, err = io.ReadFull(second, got)
		require.NoError(t, err, "the carrier of attempt 5 is the one")
		require.EqualValues(t, 'x', got[2*headerSize])
		_, _, _, _ = first.Close(), second.Close(), l.Close(), s.Close()
		<-s.(*Conn).Done()
	})
}

// Who connects and says nothing, or half of it, is in nobody's way, however many they are.
//
// Row: S-g
func TestSilentDialersAreInNobodysWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		l, err := NewListener(h, nil)
		require.NoError(t, err)
		before := runtime.NumGoroutine()
		var silent []net.Conn
		for i := range 3 * maxHellos {
			c, err := h.dial(t.Context())
			require.NoError(t, err)
			_, _ = c.Write(goldenHellos[0].h.append(nil)[:i%helloSize])
			silent = append(silent, c)
		}
		synctest.Wait()
		l.mu.Lock()
		require.Len(t, l.greeting, maxHellos)
		l.mu.Unlock()
		require.LessOrEqual(t, runtime.NumGoroutine()-before, maxHellos+10, "the runtime has its own, too")
		start := time.Now()
		c, err := Dial(h.dial, nil)
		require.NoError(t, err)
		s, err := l.Accept()
		require.NoError(t, err)
		say(t, c, s, "hello")
		require.Zero(t, time.Since(start))

		time.Sleep(5 * time.Second)
		synctest.Wait()
		l.mu.Lock()
		require.Empty(t, l.greeting)
		l.mu.Unlock()
		for _, c := range silent {
			_, err := c.Read(make([]byte, 1))
			require.Error(t, err)
		}
		_, _, _ = c.Close(), s.Close(), l.Close()
		<-c.Done()
		<-s.(*Conn).Done()
	})
}

// Row: S1
func TestListenerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil, nil)
		waiting, err := Dial(p.dial, nil) // not accepted
		require.NoError(t, err)
		silent, err := p.dial(t.Context())
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, p.l.Close())
		require.NoError(t, p.l.Close())
		_, err = p.l.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		require.Equal(t, "hub", p.l.Addr().String())
		_, err = silent.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		say(t, p.client, p.server, "an accepted conn lives on")

		start := time.Now()
		p.cutNewest() // of the silent one
		_ = waiting.Close()
		p.client.flow.Detach(errRefused)
		<-p.server.Done()
		require.Zero(t, time.Since(start), "it cannot be resumed any more")
		_, err = p.server.Read(make([]byte, 1))
		require.ErrorIs(t, err, ErrLost)
		require.ErrorContains(t, err, "listener is closed")
		waiting.flow.Close(net.ErrClosed)
		<-waiting.Done()
	})
}

// Row: S1
func TestListenerCloseEndsDetachedConns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil, nil)
		synctest.Wait()
		p.refuse(errRefused)
		p.cutNewest()
		synctest.Wait()
		require.NoError(t, p.l.Close())
		<-p.server.Done()
		require.ErrorIs(t, p.heard.last(), ErrLost)
	})
}

// flakyListener fails in its own ways.
type flakyListener struct {
	*hub
	errs chan error
}

func (f *flakyListener) Accept() (net.Conn, error) {
	select {
	case err := <-f.errs:
		return nil, err
	default:
		return f.hub.Accept()
	}
}

type temporaryError struct{ error }

func (temporaryError) Temporary() bool { return true }

func TestListenerOutlivesTemporaryErrorsAndTellsOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &flakyListener{newHub(), make(chan error, 5)}
		for range 3 {
			f.errs <- temporaryError{errors.New("too many open files")}
		}
		l, err := NewListener(f, nil)
		require.NoError(t, err)
		c, err := Dial(f.dial, nil)
		require.NoError(t, err)
		s, err := l.Accept()
		require.NoError(t, err)
		say(t, c, s, "hello")
		f.errs <- errors.New("the disk is full of eels")
		last, err := f.dial(t.Context())
		require.NoError(t, err)
		_, err = l.Accept()
		require.ErrorContains(t, err, "eels")
		_, _, _, _ = c.Close(), s.Close(), last.Close(), l.Close()
		<-c.Done()
		<-s.(*Conn).Done()

		f = &flakyListener{newHub(), make(chan error, 1)}
		f.errs <- temporaryError{errors.New("too many open files")}
		l, err = NewListener(f, nil)
		require.NoError(t, err)
		require.NoError(t, l.Close(), "during the wait")
	})
}

// The ACCEPT does not arrive, or only a part of it: the dialing side fails, and the accepting side keeps nothing for long.
//
// Row: S2, S-g
func TestCutInTheFirstHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		l, err := NewListener(h, &Options{ResumeWindow: time.Second})
		require.NoError(t, err)
		for at := range int64(2 * helloSize) {
			h.onLink(func(link *faultnet.Link) { link.CutAfter(at) })
			_, err := Dial(h.dial, nil)
			require.Error(t, err, "cut after %d bytes", at)
		}
		time.Sleep(2 * time.Second)
		l.mu.Lock()
		require.Empty(t, l.conns)
		l.mu.Unlock()
		require.NoError(t, l.Close())
	})
}

// The layer above knows that a NEW is of a Conn that is there: it goes on with that, until the dialing side has been heard.
func TestServeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := NewListener(nil, nil)
		require.NoError(t, err)
		first, carrier := faultnet.Pipe(faultnet.LinkOptions{})
		go func() { _, _ = first.Write(hello{kind: messageNew, buffer: minWindow, resumeWindow: 1e6}.append(nil)) }()
		s, err := l.Serve(carrier)
		require.NoError(t, err)
		_, err = s.Write([]byte("said before anybody was there to hear it"))
		require.NoError(t, err)
		require.False(t, s.ForSession().Heard())

		require.ErrorIs(t, s.ForSession().ServeAgain(nil), ErrInvalid)
		for _, c := range []*Conn{nil, {}} {
			a, b := faultnet.Pipe(faultnet.LinkOptions{})
			require.ErrorIs(t, c.ForSession().ServeAgain(b), ErrInvalid, "of no Listener")
			_, err := a.Read(make([]byte, 1))
			require.Error(t, err, "the carrier is closed")
		}

		served := make(chan error, 1)
		dial := func(context.Context) (net.Conn, error) {
			c, carrier := faultnet.Pipe(faultnet.LinkOptions{})
			go func() { served <- s.ForSession().ServeAgain(carrier) }()
			return c, nil
		}
		c, err := Dial(dial, nil)
		require.NoError(t, err)
		require.NoError(t, <-served)
		say(t, c, s, "to the same Conn")
		got := make([]byte, 40)
		_, err = io.ReadFull(c, got)
		require.NoError(t, err)
		require.Equal(t, "said before anybody was there to hear it", string(got))
		require.True(t, s.ForSession().Heard())

		_, err = Dial(dial, nil)
		require.ErrorIs(t, err, ErrProtocol, "the dialing side has been heard")
		require.ErrorIs(t, <-served, ErrProtocol)
		require.NoError(t, c.Reconnect())
		require.NoError(t, <-served, "a RESUME is answered as ever")
		say(t, s, c, "that has touched nothing")
		_, _ = c.Close(), s.Close()
		<-s.Done()
		require.NoError(t, l.Close())
		_, err = Dial(dial, nil)
		require.Error(t, err)
		require.ErrorIs(t, <-served, net.ErrClosed)
		_ = first.Close()
	})
}

// Row: S3
func TestCutInALaterHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil, nil)
		for at := range int64(2*helloSize + 40) {
			say(t, p.client, p.server, "before")
			tried := false
			p.onLink(func(link *faultnet.Link) {
				if !tried {
					link.CutAfter(at)
				}
				tried = true
			})
			require.NoError(t, p.client.Reconnect())
			synctest.Wait()
			p.cutNewest()
			say(t, p.server, p.client, "after")
		}
	})
}
