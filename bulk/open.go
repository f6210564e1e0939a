package bulk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/peerlane/peerlane/session"
)

// Open opens a lane under name at the peer of a session, and returns once the peer has taken it. opts may be nil.
//
// The error is that of session.OpenStream, or matches ErrNotTaken, ErrBusy, ErrVersion, ErrProtocol, ErrInvalid, or the ctx's error.
func Open(ctx context.Context, s *session.Session, name string, opts *Options) (*Lane, error) {
	o := opts.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	st, mode, why, err := openFirst(ctx, s, name, &o)
	if err != nil {
		return nil, err
	}
	count := o.Strands
	if mode == Shared {
		count = 1
	}
	ours := hello{kind: helloOpen, zstd: o.Compress, count: count}
	_, _ = rand.Read(ours.id[:]) // never fails
	theirs, err := greet(ctx, st, ours, o.HandshakeTimeout)
	if err != nil {
		_ = st.Close() // the first error is what counts
		return nil, fmt.Errorf("bulk: open %q: %w", name, err)
	}
	st.SetBulk(!o.AllowLimited) // not before: a hello is let through
	l := newLane(st, name, s.Peer(), o)
	l.mode, l.why = mode, why
	l.start(st, theirs.zstd, min(count, theirs.count))
	for i := 1; l.framed != nil && i < min(count, theirs.count); i++ {
		ours.strand = i
		l.why = errors.Join(l.why, l.addStrand(ctx, s, ours))
	}
	o.Registry.add(l)
	return l, nil
}

// openFirst opens what is to be strand 0: a dedicated stream if that is wanted and to be had.
func openFirst(ctx context.Context, s *session.Session, name string, o *Options) (st *session.Stream, m Mode, why, err error) {
	if o.Mode == Dedicated {
		st, err = s.OpenStream(ctx, name, &session.StreamOptions{Dedicated: true})
		switch {
		case err == nil && (o.AllowLimited || !st.Limited()):
			return st, Dedicated, nil, nil
		case err == nil:
			_ = st.Close() // nothing has been sent on it
			why = errLimited
		case ctx.Err() != nil || !errors.Is(err, session.ErrUnsupported) && !errors.Is(err, session.ErrUnavailable):
			return nil, Dedicated, nil, err
		default:
			why = err
		}
	}
	st, err = s.OpenStream(ctx, name, nil)
	return st, Shared, why, err
}

var errLimited = errors.New("the connection is limited, and AllowLimited is not set")

// greet says OPEN on the first strand, and takes the answer.
func greet(ctx context.Context, st *session.Stream, ours hello, timeout time.Duration) (hello, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	interrupt := context.AfterFunc(ctx, func() { _ = st.SetDeadline(time.Unix(1, 0)) }) // wakes the hello
	_, err := st.Write(ours.append(make([]byte, 0, helloSize)))
	var theirs hello
	if err == nil {
		theirs, err = readHello(st)
	}
	if !interrupt() {
		return theirs, ctx.Err()
	}
	switch {
	case err != nil:
		return theirs, err
	case theirs.kind == helloRefuse:
		return theirs, theirs.code.err()
	case theirs.kind != helloAccept, theirs.zstd && !ours.zstd:
		return theirs, protocolErrorf("%v does not answer %v", theirs, ours)
	}
	return theirs, nil
}

func newLane(st *session.Stream, name, peer string, o Options) *Lane {
	return &Lane{conn: st, pace: newPace(o.Rate), opts: o, name: name, peer: peer, opened: time.Now(), id: lastID.Add(1)}
}

// start makes the lane plain or framed (spec 2.3).
func (l *Lane) start(st *session.Stream, zstd bool, strands int) {
	if !zstd && strands == 1 {
		return
	}
	l.framed = newFramed(zstd)
	l.conn = l.framed
	l.framed.join(st)
}

// addStrand opens a further strand of a lane.
func (l *Lane) addStrand(ctx context.Context, s *session.Session, ours hello) error {
	ctx, cancel := context.WithTimeout(ctx, l.opts.HandshakeTimeout)
	defer cancel()
	st, err := s.OpenStream(ctx, l.name, &session.StreamOptions{Dedicated: true})
	if err != nil {
		return fmt.Errorf("strand %d: %w", ours.strand, err)
	}
	if _, err := st.Write(ours.append(make([]byte, 0, helloSize))); err != nil {
		_ = st.Close() // the first error is what counts
		return fmt.Errorf("strand %d: %w", ours.strand, err)
	}
	if !l.framed.join(st) {
		_ = st.Close() // the lane has ended
	}
	return nil
}

// A Registrar has handlers for the streams that peers open: a peerlane.Server, a peerlane.Client, a session.Mux.
type Registrar interface {
	SetStream(name string, fn func(*session.Stream))
}

// AcceptInfo is what an AcceptFunc decides on.
type AcceptInfo struct {
	Name    string
	Session *session.Session
}

// An AcceptFunc says whether a lane is taken, and with which Options, of which Mode and Strands mean nothing here. An error
// refuses it.
type AcceptFunc func(AcceptInfo) (*Options, error)

// Handle has serve called with every lane that a peer opens under name, in a goroutine of its own. accept may be nil: then all are
// taken, with the Options that are the default, and compressed if the peer wants that. The lane is closed when serve returns.
func Handle(at Registrar, name string, accept AcceptFunc, serve func(*Lane)) {
	h := &handler{accept: accept, serve: serve, lanes: make(map[laneKey]*Lane)}
	at.SetStream(name, h.take)
}

// handler takes the strands that peers open under one name.
type handler struct {
	accept AcceptFunc
	serve  func(*Lane)

	mu    sync.Mutex
	lanes map[laneKey]*Lane // those in blocks, that may get more strands
}

// laneKey names a lane: one session does not join another's.
type laneKey struct {
	session *session.Session
	id      laneID
}

// take serves one strand, and returns when its lane is over.
func (h *handler) take(st *session.Stream) {
	_ = st.SetDeadline(time.Now().Add(5 * time.Second)) // a stream that is closed needs none
	theirs, err := readHello(st)
	if err == nil && theirs.kind != helloOpen {
		err = protocolErrorf("hello of kind 0x%02x", theirs.kind)
	}
	if err == nil && theirs.strand > 0 {
		h.join(st, theirs)
		return
	}
	var o Options
	if err == nil {
		o, err = h.decide(st)
	}
	answer := hello{kind: helloAccept, zstd: theirs.zstd, count: theirs.count}
	if err != nil {
		answer = hello{kind: helloRefuse, code: refusalOf(err)}
	}
	l := newLane(st, st.Name(), st.Session().Peer(), o)
	key := laneKey{st.Session(), theirs.id}
	if err == nil {
		h.prepare(l, st, theirs, key)
	}
	_, failed := st.Write(answer.append(make([]byte, 0, helloSize)))
	if err != nil || failed != nil {
		h.forget(key, l)
		_ = st.Close() // the peer has been told, or is gone
		return
	}
	_ = st.SetDeadline(time.Time{}) // likewise
	st.SetBulk(!o.AllowLimited)
	h.run(l, st, theirs, key)
}

// decide asks the application about a lane.
func (h *handler) decide(st *session.Stream) (Options, error) {
	var opts *Options
	if h.accept != nil {
		var err error
		if opts, err = h.accept(AcceptInfo{Name: st.Name(), Session: st.Session()}); err != nil {
			return Options{}, fmt.Errorf("%w: %w", ErrNotTaken, err)
		}
	}
	o := opts.withDefaults()
	return o, o.validate()
}

// prepare makes a lane findable for its further strands, before the peer can open them.
func (h *handler) prepare(l *Lane, st *session.Stream, theirs hello, key laneKey) {
	if st.Dedicated() {
		l.mode = Dedicated
	}
	if !theirs.zstd && theirs.count == 1 {
		return
	}
	l.framed = newFramed(theirs.zstd)
	l.conn = l.framed
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lanes[key] = l
}

// run serves a lane.
func (h *handler) run(l *Lane, st *session.Stream, _ hello, key laneKey) {
	if l.framed != nil {
		l.framed.join(st)
	}
	l.opts.Registry.add(l)
	defer func() {
		h.forget(key, l)
		_ = l.Close() // what could not leave, the peer misses itself
		if l.framed != nil {
			<-l.framed.done
		}
	}()
	h.serve(l)
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
	if l == nil || !l.framed.join(st) {
		_ = st.Close() // spec 2.2
		return
	}
	<-l.framed.done
}
