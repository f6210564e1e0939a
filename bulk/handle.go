package bulk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/defaults"
	"github.com/peerlane/peerlane/internal/hook"
	"github.com/peerlane/peerlane/internal/lively"
	"github.com/peerlane/peerlane/session"
)

// AcceptInfo describes a lane to the accept function of Handle.
type AcceptInfo struct {
	Name    string
	Session *session.Session
}

type acceptFunc = func(AcceptInfo) (*Options, error)

// Handle calls serve, in a separate goroutine, with every lane that a peer of at opens under name. accept decides whether to take a lane, and
// with which Options; their Mode and Strands have no effect. An error refuses the lane. Without Options from accept, a lane has the default
// ones and is compressed if the peer wants that. If accept is nil, all lanes are taken. The lane is closed when serve returns, and aborted
// when it panics. If serve is nil, no lane is taken. Handle panics where at does: if at is nil, or name is longer than 255 bytes.
func Handle(at session.Registrar, name string, accept func(AcceptInfo) (*Options, error), serve func(*Lane)) {
	if serve == nil {
		accept = refuse(accept)
	}
	h := &handler{accept: accept, serve: serve, lanes: make(map[laneKey]*Lane)}
	at.SetStream(name, h.take)
}

// refuse returns an acceptFunc that asks accept, and takes nothing.
func refuse(accept acceptFunc) acceptFunc {
	return func(info AcceptInfo) (*Options, error) {
		if accept != nil {
			if _, err := accept(info); err != nil {
				return nil, err
			}
		}
		return nil, errors.New("nothing serves it")
	}
}

// handler takes the strands that peers open under one name.
type handler struct {
	accept acceptFunc
	serve  func(*Lane)

	mu    sync.Mutex
	lanes map[laneKey]*Lane // those in blocks, that may get more strands
}

// laneKey names a lane: one session does not join another's.
type laneKey struct {
	session *session.Session
	id      laneID
}

// openTimeout bounds the wait for a strand's OPEN, and for an ACCEPT to leave: time in which the session is heard.
const openTimeout = defaults.Handshake

// bounded runs fn, which is interrupted when the peer has had openTimeout for its part.
func bounded(st *session.Stream, fn func() error) error {
	ping := func(ctx context.Context) error {
		_, err := st.Session().Ping(ctx)
		return err
	}
	stop := lively.After(openTimeout, ping, func() { _ = st.SetDeadline(deadline.Past) }) // wakes fn
	defer stop()
	return fn()
}

// take serves one strand, and returns when its lane is over.
func (h *handler) take(st *session.Stream) {
	var theirs hello
	err := bounded(st, func() (err error) {
		theirs, err = readHello(st)
		return err
	})
	if err != nil && !errors.Is(err, errProtocol) && !errors.Is(err, errVersion) {
		_ = st.Close() // nobody has asked for a lane, and nobody is refused one
		return
	}
	if err == nil && theirs.kind != helloOpen {
		err = protocolErrorf("%v where OPEN is due", theirs.kind)
	}
	if err == nil && theirs.strand > 0 {
		h.join(st, theirs)
		return
	}
	answer := hello{kind: helloAccept, id: theirs.id, count: theirs.count}
	var o Options
	if err == nil {
		o, err = h.decide(st)
		answer.zstd = theirs.zstd && o.Compress
	}
	l := newLane(st, st.Name(), st.Session().Peer(), o)
	key := laneKey{st.Session(), theirs.id}
	if err == nil {
		err = h.prepare(l, st, answer, key)
	}
	if err != nil {
		answer = hello{kind: helloRefuse, code: refusalOf(err)}
	}
	failed := bounded(st, func() error {
		_, err := st.Write(answer.append(make([]byte, 0, helloSize)))
		return err
	})
	if err != nil || failed != nil {
		h.forget(key, l)
		if l.framed != nil {
			_ = l.framed.Reset(codes.Cancelled) // strands may have come already
		}
		_ = st.Close() // the peer has been told, or is gone
		return
	}
	_ = st.SetDeadline(time.Time{}) // the time may have been over just then
	st.ForLane().SetBulk(!o.AllowLimited)
	h.run(l, st, key)
}

// decide asks the application about a lane.
func (h *handler) decide(st *session.Stream) (Options, error) {
	var opts *Options
	if h.accept != nil {
		var err error
		if opts, err = h.accept(AcceptInfo{Name: st.Name(), Session: st.Session()}); err != nil {
			return Options{}, fmt.Errorf("%w: %w", ErrNotTaken, hook.Err(err))
		}
	}
	if opts == nil {
		opts = &Options{Compress: true} // if the peer wants that
	}
	o := opts.withDefaults()
	o.Mode, o.Strands = Shared, 1 // the peer's choice
	return o, o.validate()
}

// prepare makes a lane in blocks findable for its further strands, before the peer can open them.
func (h *handler) prepare(l *Lane, st *session.Stream, answer hello, key laneKey) error {
	if st.Dedicated() {
		l.mode = Dedicated
	}
	if !answer.zstd && answer.count == 1 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lanes[key] != nil {
		return protocolErrorf("a second lane of the same id")
	}
	l.inBlocks(answer)
	h.lanes[key] = l
	return nil
}

// run serves a lane.
func (h *handler) run(l *Lane, st *session.Stream, key laneKey) {
	if l.framed != nil {
		l.framed.join(0, st)
		l.framed.settle(strandsTimeout)
		l.leave = st.ForLane().FlushOnClose(l.framed.flush)
	}
	l.list(st.Session())
	returned := false
	defer func() {
		h.forget(key, l)
		if returned {
			_ = l.Close() // what could not leave, the peer misses itself
		} else {
			_ = l.Abort(codes.Internal) // a panic, which the session reports
		}
		if l.framed != nil {
			<-l.framed.done
		}
	}()
	h.serve(l)
	returned = true
}

func (h *handler) forget(key laneKey, l *Lane) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lanes[key] == l {
		delete(h.lanes, key)
	}
}

// join adds a further strand to its lane, and returns when that is over.
func (h *handler) join(st *session.Stream, theirs hello) {
	h.mu.Lock()
	l := h.lanes[laneKey{st.Session(), theirs.id}]
	h.mu.Unlock()
	_ = st.SetDeadline(time.Time{}) // a stream that is closed needs none
	if l == nil || !l.framed.join(theirs.strand, st) {
		_ = st.Close() // spec 2.2
		return
	}
	<-l.framed.done
}
