package bulk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/session"
)

// Open opens a lane under name at the peer of a session, and returns once the peer has taken it. opts may be nil.
//
// The error is that of session.OpenStream, or matches ErrNotTaken, ErrBusy, session.ErrVersion, session.ErrProtocol, session.ErrInvalid, or the ctx's error,
// context.DeadlineExceeded too when the peer has not answered within HandshakeTimeout.
func Open(ctx context.Context, s *session.Session, name string, opts *Options) (*Lane, error) {
	o := opts.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	if s == nil {
		return nil, fmt.Errorf("%w: session is nil", errInvalid)
	}
	st, mode, why, err := openFirst(ctx, s, name, &o)
	if err != nil {
		return nil, err
	}
	ours := hello{kind: helloOpen, zstd: o.Compress, count: o.Strands}
	if mode == Shared {
		ours.count = 1
	}
	_, _ = rand.Read(ours.id[:]) // never fails
	theirs, err := greet(ctx, st, ours, o.HandshakeTimeout)
	if err != nil {
		_ = st.Reset(codes.Cancelled) // the first error is what counts; the peer may have taken the lane
		return nil, fmt.Errorf("bulk: open %q: %w", name, err)
	}
	st.ForLane().SetBulk(!o.AllowLimited) // not before: a hello is let through
	l := newLane(st, name, s.Peer(), o)
	l.mode, l.why = mode, why
	if theirs.zstd || theirs.count > 1 { // spec 2.3
		l.inBlocks(theirs)
		l.framed.join(0, st)
		l.leave = st.ForLane().FlushOnClose(l.framed.flush)
		l.why = errors.Join(why, l.addStrands(ctx, s, ours, theirs.count))
	}
	if err := ctx.Err(); err != nil {
		_ = l.Abort(codes.Cancelled) // the ctx is what counts
		return nil, fmt.Errorf("bulk: open %q: %w", name, err)
	}
	l.list(s)
	return l, nil
}

// openFirst opens what is to be strand 0: a dedicated stream if that is wanted and to be had.
func openFirst(ctx context.Context, s *session.Session, name string, o *Options) (st *session.Stream, m Mode, why, err error) {
	if o.Mode == Dedicated {
		st, err := openDedicated(ctx, s, name)
		if err == nil {
			return st, Dedicated, nil, nil
		}
		if ctx.Err() != nil || !refused(err) {
			return nil, Dedicated, nil, err
		}
		why = err
	}
	st, err = s.OpenStream(ctx, name, nil)
	return st, Shared, why, err
}

var errLimited = errors.New("the connection is limited")

// openDedicated opens a dedicated stream, but not on a limited connection: it would end there with the connection, which a shared lane
// outlives.
func openDedicated(ctx context.Context, s *session.Session, name string) (*session.Stream, error) {
	st, err := s.OpenStream(ctx, name, &session.StreamOptions{Dedicated: true})
	if err == nil && st.Limited() {
		_ = st.Close() // nothing has been sent on it
		return nil, errLimited
	}
	return st, err
}

// refused reports whether a dedicated stream is not to be had for err, where a shared one may be.
func refused(err error) bool {
	if errors.Is(err, errLimited) || errors.Is(err, session.ErrUnsupported) || errors.Is(err, session.ErrUnavailable) {
		return true
	}
	e, ok := errors.AsType[*session.Error](err)
	return ok && e.Code == codes.OK && e.Outcome == session.NotSent // there was no connection for it
}

// greet says OPEN on the first strand, and takes the answer.
func greet(ctx context.Context, st *session.Stream, ours hello, timeout time.Duration) (hello, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	st.ForLane().SetPayload(func() uint64 { return 0 })
	var theirs hello
	err := during(ctx, st, func() (err error) {
		if _, err := st.Write(ours.append(make([]byte, 0, helloSize))); err != nil {
			return err
		}
		theirs, err = readHello(st)
		return err
	})
	switch {
	case err != nil:
		return theirs, err
	case theirs.kind == helloRefuse:
		return theirs, theirs.code.err()
	case theirs.kind != helloAccept, theirs.zstd && !ours.zstd, theirs.count > ours.count, theirs.id != ours.id:
		return theirs, protocolErrorf("%v does not answer %v", theirs, ours)
	}
	return theirs, nil
}

// during runs fn, which the end of ctx interrupts: then its error is returned.
func during(ctx context.Context, st *session.Stream, fn func() error) error {
	interrupt := context.AfterFunc(ctx, func() { _ = st.SetDeadline(deadline.Past) }) // wakes fn
	err := fn()
	if !interrupt() {
		return ctx.Err()
	}
	return err
}

func newLane(st *session.Stream, name, peer string, o Options) *Lane {
	l := &Lane{conn: st, pace: newPace(o.Rate), opts: o, name: name, peer: peer, opened: time.Now(), id: lastID.Add(1)}
	st.ForLane().SetPayload(l.begun.Load)
	return l
}

// inBlocks makes the lane one in blocks, as ACCEPT says.
func (l *Lane) inBlocks(accept hello) {
	l.framed = newFramed(accept.zstd, accept.count)
	if st := laneOf(l.conn); st != nil {
		l.framed.kept, l.framed.arrived = st.Budgets()
	}
	l.conn = l.framed
}

// strandsTimeout bounds how long the further strands of a lane take to come (spec 2.2).
const strandsTimeout = 10 * time.Second

// addStrands opens the further strands of a lane, and returns why there are fewer than were asked for. What ends one ends the
// attempt at the others.
func (l *Lane) addStrands(ctx context.Context, s *session.Session, ours hello, count int) error {
	ctx, cancel := context.WithTimeout(ctx, strandsTimeout)
	defer cancel()
	defer l.framed.settle(0)
	for ours.strand = 1; ours.strand < count; ours.strand++ {
		if err := l.addStrand(ctx, s, ours); err != nil {
			return fmt.Errorf("strand %d: %w", ours.strand, err)
		}
	}
	if count < ours.count {
		return fmt.Errorf("the peer takes %d strands", count)
	}
	return nil
}

func (l *Lane) addStrand(ctx context.Context, s *session.Session, ours hello) error {
	st, err := openDedicated(ctx, s, l.name)
	if err != nil {
		return err
	}
	err = during(ctx, st, func() error {
		_, err := st.Write(ours.append(make([]byte, 0, helloSize)))
		return err
	})
	if err != nil {
		_ = st.Reset(codes.Cancelled) // the first error is what counts
		return err
	}
	if !l.framed.join(ours.strand, st) {
		_ = st.Close() // the lane has ended
	}
	return nil
}
