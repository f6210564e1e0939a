package bulk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/defaults"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

var separate = &session.StreamOptions{Dedicated: true}

func open0(strands int) hello { return hello{kind: helloOpen, id: testID, count: strands} }

func (h hello) nth(strand int) hello { h.strand = strand; return h }

// A strand that nobody waits for is dropped, and the lane it wanted to join goes on (spec 2.2).
func TestStrandsThatAreNotDueAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
		other := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
		registry := new(Registry)
		lanes := make(chan *Lane, 1)
		accept := func(AcceptInfo) (*Options, error) { return &Options{Registry: registry}, nil }
		h := &handler{accept: accept, lanes: map[laneKey]*Lane{}, serve: func(l *Lane) {
			lanes <- l
			_, _ = io.Copy(io.Discard, l)
		}}
		p.ToBob.SetStream("lane", h.take)
		other.ToBob.SetStream("lane", h.take)
		dropped := func(s *session.Session, o hello) {
			st := rawOpen(t, s, o, separate)
			b, err := io.ReadAll(st)
			require.Empty(t, b)
			require.NoError(t, err)
			_ = st.Close()
		}
		dropped(p.Alice, open0(3).nth(1)) // nobody knows the id
		first := rawOpen(t, p.Alice, open0(3), separate)
		answer, err := readHello(first)
		require.NoError(t, err)
		require.Equal(t, hello{kind: helloAccept, id: testID, count: 3}, answer)
		l := <-lanes
		dropped(other.Alice, open0(3).nth(1)) // another session's
		strange := open0(3).nth(1)
		strange.id[0]++
		dropped(p.Alice, strange)
		dropped(p.Alice, hello{kind: helloOpen, id: testID, count: 16, strand: 7}) // was not agreed on
		second := rawOpen(t, p.Alice, open0(3).nth(1), separate)
		synctest.Wait()
		dropped(p.Alice, open0(3).nth(1)) // twice
		require.Equal(t, 2, l.Snapshot().Strands)

		again := rawOpen(t, p.Alice, open0(3), separate) // a second lane of the same id
		answer, err = readHello(again)
		require.NoError(t, err)
		require.Equal(t, hello{kind: helloRefuse, code: refuseProtocol}, answer)
		_ = again.Close()
		require.Same(t, l, h.lanes[laneKey{l.conn.(*framed).strands[0].(*session.Stream).Session(), testID}])

		_, err = second.Write(cat(rawBlock(0, "a"), rawEnd(1)))
		require.NoError(t, err)
		_, _ = first.Close(), second.Close()
		time.Sleep(2 * defaults.Close)
		require.Empty(t, registry.Snapshots())
		require.Empty(t, h.lanes)
		require.EqualValues(t, 1, l.Snapshot().Read)
	})
}

// Hellos that are none are refused, and so is what comes where OPEN is due.
func TestHandleRefusesWhatIsNoOpen(t *testing.T) {
	for name, test := range map[string]struct {
		wire []byte
		code refusal
	}{
		"HTTP":            {[]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), refuseProtocol},
		"an ACCEPT":       {hello{kind: helloAccept, id: testID, count: 1}.append(nil), refuseProtocol},
		"a REFUSE":        {hello{kind: helloRefuse, code: 3}.append(nil), refuseProtocol},
		"no strands":      {hello{kind: helloOpen, id: testID}.append(nil), refuseProtocol},
		"17 strands":      {open0(17).append(nil), refuseProtocol},
		"no id":           {hello{kind: helloOpen, count: 1}.append(nil), refuseProtocol},
		"another version": {append(append([]byte{}, helloMagic[:]...), append([]byte{2, 0x21}, make([]byte, 22)...)...), refuseVersion},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
			Handle(p.ToBob, "lane", nil, func(*Lane) { panic("it is no lane") })
			st, err := p.Alice.OpenStream(t.Context(), "lane", nil)
			require.NoError(t, err)
			_, err = st.Write(test.wire)
			require.NoError(t, err)
			answer, err := readHello(st)
			require.NoError(t, err, name)
			require.Equal(t, hello{kind: helloRefuse, code: test.code}, answer, name)
			_ = st.Close()
		})
	}
}

// Who says nothing after opening a stream is let go.
func TestHandleWaitsForAnOpenNoLongerThanOpenTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
		Handle(p.ToBob, "lane", nil, func(*Lane) { panic("it is no lane") })
		st, err := p.Alice.OpenStream(t.Context(), "lane", nil)
		require.NoError(t, err)
		began := time.Now()
		_, err = io.Copy(io.Discard, st)
		require.NoError(t, err)
		require.Equal(t, openTimeout, time.Since(began))
		_ = st.Close()
	})
}

// An answer that does not fit the question is a breach, and no answer ends at HandshakeTimeout or with the ctx.
func TestOpenTakesNoAnswerThatIsNone(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(hello) hello
		err    error
	}{
		"another id":       {func(h hello) hello { h.kind = helloAccept; h.id[3]++; return h }, errProtocol},
		"more strands":     {func(h hello) hello { h.kind = helloAccept; h.count++; return h }, errProtocol},
		"zstd":             {func(h hello) hello { h.kind = helloAccept; h.zstd = true; return h }, errProtocol},
		"an OPEN":          {func(h hello) hello { return h }, errProtocol},
		"busy":             {func(hello) hello { return hello{kind: helloRefuse, code: refuseBusy} }, ErrBusy},
		"not accepted":     {func(hello) hello { return hello{kind: helloRefuse, code: refuseNotAccepted} }, ErrNotTaken},
		"version":          {func(hello) hello { return hello{kind: helloRefuse, code: refuseVersion} }, errVersion},
		"HandshakeTimeout": {nil, context.DeadlineExceeded},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
			over := make(chan error, 1)
			p.ToBob.SetStream("lane", func(st *session.Stream) {
				h, err := readHello(st)
				if err == nil && test.answer != nil {
					_, _ = st.Write(test.answer(h).append(nil))
				}
				_, err = io.Copy(io.Discard, st)
				over <- err
			})
			registry := new(Registry)
			began := time.Now()
			l, err := Open(t.Context(), p.Alice, "lane", &Options{HandshakeTimeout: time.Minute, Registry: registry})
			require.Nil(t, l)
			require.ErrorIs(t, err, test.err, name)
			require.ErrorContains(t, err, `bulk: open "lane": `)
			require.Empty(t, registry.Snapshots())
			if test.answer == nil {
				require.Equal(t, time.Minute, time.Since(began))
			}
			require.Error(t, <-over, "%s: the peer does not take it for a lane that ended in order", name)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
		p.ToBob.SetStream("lane", func(st *session.Stream) { _, _ = io.Copy(io.Discard, st) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := Open(ctx, p.Alice, "lane", nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = Open(t.Context(), p.Alice, "nobody", &Options{Mode: Dedicated})
		require.ErrorIs(t, err, session.ErrNotFound, "a shared stream would not be found either")
		_ = p.Alice.Close()
		_, err = Open(t.Context(), p.Alice, "lane", nil)
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

// Claim: bulk.AcceptInfo.Name, bulk.AcceptInfo.Session
func TestAcceptDecides(t *testing.T) {
	for _, test := range []struct {
		opts *Options
		err  error
		want error
	}{
		{nil, nil, nil},
		{&Options{Mode: 9, Strands: 99}, nil, nil}, // the peer's choice
		{&Options{Rate: -1}, nil, ErrNotTaken},
		{nil, errors.New("not you"), ErrNotTaken},
		{nil, ErrBusy, ErrBusy},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
			accept := func(i AcceptInfo) (*Options, error) {
				require.Equal(t, "lane", i.Name)
				require.Equal(t, "alice", i.Session.Peer())
				time.Sleep(4 * time.Second) // it may
				return test.opts, test.err
			}
			Handle(p.ToBob, "lane", accept, func(l *Lane) { _, _ = io.Copy(l, l) })
			l, err := Open(t.Context(), p.Alice, "lane", nil)
			if test.want != nil {
				require.ErrorIs(t, err, test.want)
				return
			}
			require.NoError(t, err)
			require.NoError(t, l.Close())
		})
	}
}

// A handler that panics aborts its lane: the peer does not take it for the end.
func TestAHandlerThatPanicsAbortsTheLane(t *testing.T) {
	for name, opts := range kinds {
		if name == "dedicated" {
			continue // a link has no resets
		}
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{Logger: slog.New(slog.DiscardHandler)})
			registry := new(Registry)
			accept := func(AcceptInfo) (*Options, error) { return &Options{Registry: registry, Compress: true}, nil }
			Handle(p.ToBob, "lane", accept, func(l *Lane) {
				_, _ = l.Read(make([]byte, 1))
				panic("oops")
			})
			l, err := Open(t.Context(), p.Alice, "lane", opts)
			require.NoError(t, err)
			_, err = l.Write([]byte("x"))
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, l)
			require.Error(t, err, name)
			if l.Snapshot().Mode == Shared {
				require.ErrorIs(t, err, session.ErrInternal, name)
			}
			require.Empty(t, registry.Snapshots())
			_ = l.Close() // it may say that the handler has read nothing
		})
	}
}

// Handlers that return at once, while strands are on their way.
func TestAHandlerMayReturnWhileStrandsCome(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Millisecond, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, peerlanetest.SessionsOptions{Delay: delay}, session.Config{})
			var served atomic.Int32
			Handle(p.ToBob, "lane", nil, func(l *Lane) {
				if served.Add(1)%2 == 0 {
					_, _ = l.Write([]byte("bye"))
				}
			})
			for i := range 6 {
				l, err := Open(t.Context(), p.Alice, "lane", &Options{Mode: Dedicated, Strands: 5, Compress: true})
				require.NoError(t, err)
				b, err := io.ReadAll(l)
				require.NoError(t, err, "%d, %v", i, delay)
				if i%2 == 1 {
					require.Equal(t, "bye", string(b))
				}
				require.NoError(t, l.Close())
			}
			time.Sleep(2 * defaults.Close)
		})
	}
}

// A session that is lost ends its lanes on both sides.
func TestALaneEndsWithItsSession(t *testing.T) {
	for name, opts := range kinds {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{ResumeWindow: -1})
			here, there := p.lanes(t, opts)
			_, err := here.Write([]byte("x"))
			require.NoError(t, err)
			_, err = io.ReadFull(there, make([]byte, 1))
			require.NoError(t, err)
			for _, l := range p.Links() {
				l.Cut()
			}
			for _, l := range []*Lane{here, there} {
				_, err := io.Copy(io.Discard, l)
				require.Error(t, err, name)
				_, err = io.CopyN(l, zeros{}, 64<<20)
				require.Error(t, err, name)
				_ = l.Close() // it may say that what was written is lost
			}
		})
	}
}

// The bytes of a Write stay together under a Rate too.
func TestWritesTakeTurnsAtARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
		here, there := p.lanes(t, &Options{Rate: 1000})
		for i := range 4 {
			go func() { _, _ = here.Write(bytes.Repeat([]byte{byte(i)}, 1000)) }()
		}
		b := make([]byte, 1000)
		for range 4 {
			_, err := io.ReadFull(there, b)
			require.NoError(t, err)
			require.Equal(t, bytes.Repeat(b[:1], 1000), b)
		}
		wrote := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := here.Write(make([]byte, 10_000))
				wrote <- err
			}()
		}
		time.Sleep(time.Second)
		require.NoError(t, here.Close())
		require.ErrorIs(t, <-wrote, net.ErrClosed)
		require.ErrorIs(t, <-wrote, net.ErrClosed)
		require.Error(t, here.SetWriteDeadline(time.Now().Add(time.Hour)))
	})
}
