package record

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/session"
)

// Open opens a record stream under name at the peer of a session, and returns once the peer has accepted it. It is carried by a
// shared stream, and so outlives the session's carriers. opts may be nil.
//
// The error is that of session.OpenStream, or an *Error: it matches ErrNotTaken when the peer's application refuses the stream,
// with its own code; ErrHistory when the places of the two sides do not fit together; ErrVersion, ErrInvalid, ErrStore, and the
// ctx's error.
func Open(ctx context.Context, s *session.Session, name string, opts *Options) (*Stream, error) {
	if s == nil {
		return nil, &Error{Op: "open", Name: name, Err: fmt.Errorf("%w: session is nil", ErrInvalid)}
	}
	if opts != nil {
		if o := opts.withDefaults(); o.validate() != nil {
			return nil, &Error{Op: "open", Name: name, Err: o.validate()}
		}
	}
	st, err := s.OpenStream(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	return open(ctx, st, identity{name, s.Peer()}, opts)
}

// OpenConn is Open on a conn: any byte stream with deadlines, the other end of which is given to AcceptConn. The stream owns conn, also
// when OpenConn fails.
func OpenConn(ctx context.Context, conn net.Conn, opts *Options) (*Stream, error) {
	return open(ctx, conn, identity{}, opts)
}

func open(ctx context.Context, conn net.Conn, who identity, opts *Options) (*Stream, error) {
	return establish(ctx, conn, who, opts, func(o *Options, stand func() (Place, error)) (ours, theirs hello, err error) {
		place, err := stand()
		if err != nil {
			return ours, theirs, err
		}
		ours = o.hello(helloOpen, place)
		if _, err := conn.Write(ours.append(make([]byte, 0, helloSize))); err != nil {
			return ours, theirs, err
		}
		theirs, err = readHello(conn, helloAccept)
		return ours, theirs, err
	})
}

// AcceptConn is the other side of OpenConn.
func AcceptConn(ctx context.Context, conn net.Conn, opts *Options) (*Stream, error) {
	return accept(ctx, conn, identity{}, opts)
}

func accept(ctx context.Context, conn net.Conn, who identity, opts *Options) (*Stream, error) {
	return establish(ctx, conn, who, opts, func(o *Options, stand func() (Place, error)) (ours, theirs hello, err error) {
		ours.kind = helloAccept
		if theirs, err = readHello(conn, helloOpen); err != nil {
			return ours, theirs, err
		}
		place, err := stand() // not before: a conn without a hello takes no store over
		if err != nil {
			return ours, theirs, err
		}
		return o.hello(helloAccept, place), theirs, nil
	})
}

// greeter exchanges hellos. It calls stand, once at most, for the place of this side, which the Store has. When it fails, ours has at
// least its kind if the other side is to be told.
type greeter func(o *Options, stand func() (Place, error)) (ours, theirs hello, err error)

// establish makes a stream of a conn by a hello, within the time for that.
func establish(ctx context.Context, conn net.Conn, who identity, opts *Options, greet greeter) (*Stream, error) {
	o := opts.withDefaults()
	if conn == nil {
		return nil, &Error{Op: "open", Name: who.name, Err: fmt.Errorf("%w: conn is nil", ErrInvalid)}
	}
	s, err := prepare(ctx, conn, who, o, greet)
	if err != nil {
		_ = conn.Close() // the first error is what counts
		var e *Error
		if errors.As(err, &e) {
			e.Name = who.name
			return nil, err
		}
		return nil, &Error{Op: "open", Name: who.name, Err: err}
	}
	s.start()
	return s, nil
}

func prepare(ctx context.Context, conn net.Conn, who identity, o Options, greet greeter) (*Stream, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	var lease lease
	ctx, cancel := context.WithTimeout(ctx, o.HandshakeTimeout)
	defer cancel()
	interrupt := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(deadline.Past) }) // wakes the hello
	ours, theirs, err := greet(&o, func() (Place, error) { return lease.begin(o.Store) })
	var s *Stream
	if err == nil {
		s, err = newStream(conn, who, o, ours, theirs)
	}
	if err == nil && ours.kind == helloAccept { // last, for what has gone wrong before is told by REFUSE
		_, err = conn.Write(ours.append(make([]byte, 0, helloSize)))
	}
	if !interrupt() {
		err = ctx.Err()
	}
	if err != nil {
		sayWhyNot(conn, ours.kind, err)
		return nil, errors.Join(err, lease.end())
	}
	lease.serve(s)
	return s, nil
}

// sayWhyNot tells the peer why there will be no stream: with REFUSE, or when this side has opened it, with CLOSE.
func sayWhyNot(conn net.Conn, side helloKind, err error) {
	var e *Error
	if side == 0 || errors.As(err, &e) && e.Remote || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return
	}
	code, text := codeOf(err), cut(err.Error())
	if code == CodeStore {
		text = "" // it may name what is this side's alone
	}
	words := make([]byte, 0, helloPrefix+6+len(text))
	if side == helloOpen {
		words = appendClose(words, code, text)
	} else {
		words = appendRefusal(words, code, text)
	}
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // a conn that is closed needs none
	_, _ = conn.Write(words)                               // the peer may be gone
}

// A Registrar has handlers for the streams that peers open: a peerlane.Server, a peerlane.Client, a session.Mux.
type Registrar interface {
	SetStream(name string, fn func(*session.Stream))
}

// AcceptInfo is what AcceptFunc decides on.
type AcceptInfo struct {
	Name    string
	Session *session.Session
}

// An AcceptFunc says whether a record stream is taken, and with which Options. An error refuses it: the peer is told its text, and if
// it is an *Error with a Code of the application's, that.
type AcceptFunc func(AcceptInfo) (*Options, error)

// Handle has serve called with every record stream that a peer opens under name, in a goroutine of its own. accept may be nil: then
// all are taken, with the Options that are the default. The stream is closed when serve returns. Without serve none is taken. Handle panics
// where at does: when at is nil, or name longer than 255 bytes.
func Handle(at Registrar, name string, accept AcceptFunc, serve func(*Stream)) {
	if serve == nil {
		accept = refuse(accept)
	}
	at.SetStream(name, func(st *session.Stream) {
		s, err := answer(st, accept)
		if err != nil {
			return // the peer has been told
		}
		defer func() {
			if v := recover(); v != nil {
				s.refuse(s.opError("serve", errPanic), CodeInternal, errPanic.Error())
				<-s.done
				panic(v) // is the session's to report
			}
			_ = s.Close() // what could not leave, the peer misses itself
		}()
		serve(s)
	})
}

// refuse returns an AcceptFunc that asks accept, and takes nothing.
func refuse(accept AcceptFunc) AcceptFunc {
	return func(info AcceptInfo) (*Options, error) {
		if accept != nil {
			opts, err := accept(info)
			if err != nil {
				return nil, err
			}
			if o := opts.withDefaults(); o.validate() != nil {
				return opts, nil // they are why
			}
		}
		return nil, errors.New("nothing serves it")
	}
}

var errPanic = errors.New("the handler panicked")

func answer(st *session.Stream, hook AcceptFunc) (*Stream, error) {
	who := identity{st.Name(), st.Session().Peer()}
	var opts *Options
	var refused error
	if hook != nil {
		opts, refused = hook(AcceptInfo{Name: st.Name(), Session: st.Session()})
	}
	if o := opts.withDefaults(); refused == nil {
		refused = o.validate()
	}
	if refused == nil {
		return accept(st.Session().Context(), st, who, opts)
	}
	_ = st.SetDeadline(time.Now().Add(5 * time.Second)) // a stream that is closed needs none
	if _, err := readHello(st, helloOpen); err != nil {
		return nil, err
	}
	code, text := CodeNotAccepted, refused.Error()
	var e *Error
	if errors.As(refused, &e) && e.Code >= CodeApplication {
		code, text = e.Code, e.Text
	}
	_, _ = st.Write(appendRefusal(nil, code, cut(text))) // the peer may be gone
	return nil, fmt.Errorf("%w: %w", ErrNotTaken, refused)
}
