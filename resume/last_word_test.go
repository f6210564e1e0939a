package resume

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

var (
	errWhim     = errors.New("no more of this") // what a Conn is aborted with
	errLastWord = errors.New("that was all")    // what a carrier then says on the other side
)

// A curt hub has carriers that bring the other side's last word, as those do that can be reset with a code.
type curtHub struct {
	*hub
	mu      sync.Mutex
	over    map[*faultnet.Link]bool // a last word was said
	reasons map[string][]error      // what Options.Drop was told, by side
}

type curtCarrier struct {
	*faultnet.Conn
	hub *curtHub
}

func (c *curtCarrier) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	if err != nil && c.hub.over[c.Link()] {
		err = errLastWord
	}
	return n, err
}

func (h *curtHub) dial(ctx context.Context) (net.Conn, error) { return h.wrap(h.hub.dial(ctx)) }
func (h *curtHub) Accept() (net.Conn, error)                  { return h.wrap(h.hub.Accept()) }

func (h *curtHub) wrap(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return &curtCarrier{c.(*faultnet.Conn), h}, nil
}

// options are those of one side.
func (h *curtHub) options(side string, told *diary) *Options {
	return &Options{
		OnState: told.note,
		Final: func(err error) error {
			if errors.Is(err, errLastWord) {
				return errLastWord
			}
			return nil
		},
		Drop: func(carrier net.Conn, reason error) {
			h.mu.Lock()
			h.reasons[side] = append(h.reasons[side], reason)
			if errors.Is(reason, errWhim) {
				h.over[carrier.(*curtCarrier).Link()] = true
			}
			h.mu.Unlock()
			_ = carrier.Close()
		},
	}
}

// dropped returns what Options.Drop was told on a side.
func (h *curtHub) dropped(side string) []error {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reasons[side]
}

func newCurtPair(t *testing.T) (*pair, *curtHub) {
	t.Helper()
	h := &curtHub{hub: newHub(), over: map[*faultnet.Link]bool{}, reasons: map[string][]error{}}
	p := &pair{hub: h.hub, told: new(diary), heard: new(diary)}
	var err error
	p.l, err = NewListener(h, h.options("server", p.heard))
	require.NoError(t, err)
	p.client, err = Dial(h.dial, h.options("client", p.told))
	require.NoError(t, err)
	server, err := p.l.Accept()
	require.NoError(t, err)
	p.server = server.(*Conn)
	t.Cleanup(func() { p.end(t) })
	return p, h
}

// Abort ends both sides at once where carriers bring last words: this one with its own reason, that one with the word, and
// nobody resumes.
func TestAbortIsTheLastWord(t *testing.T) {
	for name, choose := range map[string]func(p *pair) (ends, hears *Conn, told *diary){
		"of the dialing side":   func(p *pair) (*Conn, *Conn, *diary) { return p.client, p.server, p.heard },
		"of the accepting side": func(p *pair) (*Conn, *Conn, *diary) { return p.server, p.client, p.told },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, _ := newCurtPair(t)
				ends, hears, told := choose(p)
				say(t, hears, ends, "before")
				_, err := hears.Write([]byte("not read"))
				require.NoError(t, err)
				synctest.Wait()
				_, dials := p.newest()
				began := time.Now()
				ends.Abort(errWhim)
				ends.Abort(errRefused)
				for range 2 {
					_, err = ends.Read(make([]byte, 1))
					require.ErrorIs(t, err, errWhim)
					_, err = ends.Write([]byte("x"))
					require.ErrorIs(t, err, errWhim)
					_, err = hears.Read(make([]byte, 1))
					require.ErrorIs(t, err, errLastWord)
					_, err = hears.Write([]byte("x"))
					require.ErrorIs(t, err, errLastWord)
				}
				require.ErrorIs(t, ends.SetReadDeadline(time.Time{}), net.ErrClosed)
				require.ErrorIs(t, ends.SetWriteDeadline(time.Time{}), net.ErrClosed)
				<-ends.Done()
				<-hears.Done()
				require.Less(t, time.Since(began), time.Second)
				require.Equal(t, "connected lost ", told.text())
				require.ErrorIs(t, told.last(), errLastWord)
				_, after := p.newest()
				require.Equal(t, dials, after, "nobody has tried to resume")
				require.NoError(t, ends.Close())
				_, err = ends.Read(make([]byte, 1))
				require.ErrorIs(t, err, net.ErrClosed)
			})
		})
	}
}

// Drop is told whether the Conn goes on, and how it has ended.
// Claim: resume.Options.Drop
func TestDropIsToldWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, h := newCurtPair(t)
		say(t, p.client, p.server, "one")
		p.cutNewest()
		say(t, p.client, p.server, "two")
		require.Equal(t, []error{nil}, h.dropped("client"))
		require.Equal(t, []error{nil}, h.dropped("server"))
		require.NoError(t, p.client.Reconnect())
		synctest.Wait()
		say(t, p.client, p.server, "three")
		require.Len(t, h.dropped("client"), 1, "what a hand-over leaves is closed, not dropped")
		require.NoError(t, p.client.Close())
		require.NoError(t, p.server.Close())
		<-p.client.Done()
		<-p.server.Done()
		require.Equal(t, []error{nil, net.ErrClosed}, h.dropped("client"))
		require.Equal(t, []error{nil, net.ErrClosed}, h.dropped("server"))
	})
	synctest.Test(t, func(t *testing.T) {
		p, h := newCurtPair(t)
		p.client.flow.Close(ErrLost)
		<-p.client.Done()
		require.Equal(t, []error{ErrLost}, h.dropped("client"))
		p.server.Abort(errWhim)
	})
}

// Abort after Close gives up what Close still delivers, and wakes whoever waits in a carrier.
func TestAbortAfterCloseDeliversNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, h := newCurtPair(t)
		link, _ := p.newest()
		link.Freeze()
		wrote := make(chan error, 1)
		go func() {
			_, err := p.client.Write(make([]byte, 256<<10)) // more than the link takes
			wrote <- err
		}()
		synctest.Wait()
		require.NoError(t, p.client.Close())
		require.NoError(t, <-wrote, "all of it is kept")
		began := time.Now()
		p.client.Abort(errWhim)
		<-p.client.Done()
		require.Zero(t, time.Since(began))
		require.Equal(t, []error{errWhim}, h.dropped("client"))
		_, err := p.client.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
		link.Thaw()
		_, err = io.Copy(io.Discard, p.server)
		require.ErrorIs(t, err, errLastWord)
	})
}

// Final is asked about what the dialFunc fails with, too, when that is to resume.
// Claim: resume.Options.Final
func TestFinalEndsTheAttemptsToResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := newCurtPair(t)
		p.refuse(errRefused)
		p.cutNewest()
		time.Sleep(10 * time.Second)
		require.Equal(t, "connected detached ", p.told.text(), "that was not the last word")
		p.refuse(errLastWord)
		_, err := p.client.Read(make([]byte, 1))
		require.ErrorIs(t, err, errLastWord)
		<-p.client.Done()
		require.Equal(t, "connected detached lost ", p.told.text())
	})
}

// A Listener without one below takes carriers that are brought to it.
func TestServeTakesCarriersFromElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := NewListener(nil, &Options{MaxConns: 1})
		require.NoError(t, err)
		require.Nil(t, l.Addr())
		type served struct {
			c   *Conn
			err error
		}
		results := make(chan served, 1)
		var link *faultnet.Link
		dial := func(context.Context) (net.Conn, error) {
			link = faultnet.NewLink(faultnet.LinkOptions{})
			a, b := link.Ends()
			go func() {
				c, err := l.Serve(b)
				results <- served{c, err}
			}()
			return a, nil
		}
		client, err := Dial(dial, nil)
		require.NoError(t, err)
		first := <-results
		require.NoError(t, first.err)
		say(t, client, first.c, "a new one")
		link.Cut()
		again := <-results
		require.NoError(t, again.err)
		require.Nil(t, again.c, "it has resumed the one there is")
		say(t, first.c, client, "the same")

		_, err = Dial(dial, nil)
		require.ErrorIs(t, err, ErrBusy)
		require.ErrorIs(t, (<-results).err, ErrBusy)
		for say, want := range map[string]error{
			"GET / HTTP/1.1\r\n": ErrStranger,
			string(hello{kind: messageResume, id: testID, attempt: 1}.append(nil)): ErrUnknown,
			string(hello{kind: messageRefuse, code: refuseBusy}.append(nil)):       ErrProtocol,
		} {
			c, err := dial(t.Context())
			require.NoError(t, err)
			_, err = c.Write([]byte(say))
			require.NoError(t, err)
			_, _ = readHello(c)
			require.NoError(t, c.Close())
			require.ErrorIs(t, (<-results).err, want)
		}
		mute, err := dial(t.Context())
		require.NoError(t, err)
		began := time.Now()
		require.Error(t, (<-results).err)
		require.Equal(t, 5*time.Second, time.Since(began))
		require.NoError(t, mute.Close())

		_, err = dial(t.Context()) // in its hello when the Listener closes
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, l.Close())
		require.NoError(t, l.Close())
		require.Error(t, (<-results).err)
		_, err = l.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		c, err := dial(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, (<-results).err, net.ErrClosed)
		_, err = c.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.EPIPE, "the carrier is closed")
		client.Abort(errWhim)
		first.c.Abort(errWhim)
		<-client.Done()
		<-first.c.Done()
	})
}
