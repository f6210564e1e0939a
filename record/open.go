package record

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/hook"
	"github.com/peerlane/peerlane/internal/lively"
	"github.com/peerlane/peerlane/session"
)

// Open opens a record stream under name at the peer of a session, and returns once the peer has accepted it. The stream runs on a shared
// stream, and so outlives the session's carriers. opts may be nil.
//
// The error is that of session.OpenStream, or an *Error. The *Error matches ErrNotTaken when the peer's application refuses the stream,
// with the application's code; ErrHistory when the positions of the two sides do not fit together; or ErrVersion, ErrInvalid, ErrStore, or
// the ctx's error.
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

// OpenConn is Open on a conn: any byte stream with deadlines whose other end is passed to AcceptConn. The stream owns conn, even if
// OpenConn fails.
func OpenConn(ctx context.Context, conn net.Conn, opts *Options) (*Stream, error) {
	return open(ctx, conn, identity{}, opts)
}

func open(ctx context.Context, conn net.Conn, who identity, opts *Options) (*Stream, error) {
	return establish(ctx, conn, who, opts, context.WithTimeout, (*handshake).open)
}

// AcceptConn is the accepting side of OpenConn.
func AcceptConn(ctx context.Context, conn net.Conn, opts *Options) (*Stream, error) {
	return accept(ctx, conn, identity{}, opts)
}

func accept(ctx context.Context, conn net.Conn, who identity, opts *Options) (*Stream, error) {
	return establish(ctx, conn, who, opts, context.WithTimeout, (*handshake).accept)
}

// bounder bounds the time of the hello.
type bounder = func(context.Context, time.Duration) (context.Context, context.CancelFunc)

// whileHeard counts only the time in which the peer of s is heard.
func whileHeard(s *session.Session) bounder {
	ping := func(ctx context.Context) error {
		_, err := s.Ping(ctx)
		return err
	}
	return func(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
		return lively.WithTimeout(ctx, d, ping)
	}
}

// handshake is a stream whose hellos are being exchanged.
type handshake struct {
	conn  net.Conn
	br    *bufio.Reader // of conn
	who   identity
	o     Options
	lease *lease
	ours  hello
	said  bool    // ours has been sent
	made  *Stream // nil until there is one; it is started if nothing fails

	theirs hello
}

// establish makes a stream from a conn by exchanging hellos, within the time for that.
func establish(ctx context.Context, conn net.Conn, who identity, opts *Options, bound bounder, greet greeter) (*Stream, error) {
	o := opts.withDefaults()
	if conn == nil {
		return nil, &Error{Op: "open", Name: who.name, Err: fmt.Errorf("%w: conn is nil", ErrInvalid)}
	}
	s, err := prepare(ctx, conn, who, o, bound, greet)
	if err != nil {
		_ = conn.Close() // only the first error counts
		if e, ok := errors.AsType[*Error](err); ok {
			e.Name = who.name
			return nil, err
		}
		return nil, &Error{Op: "open", Name: who.name, Err: err}
	}
	s.start()
	return s, nil
}

// greeter exchanges hellos and makes the stream.
type greeter func(*handshake, context.Context) (*Stream, error)

func prepare(ctx context.Context, conn net.Conn, who identity, o Options, bound bounder, greet greeter) (*Stream, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	ctx, cancel := bound(ctx, o.HandshakeTimeout)
	defer cancel()
	ctx, supersede := context.WithCancelCause(ctx)
	defer supersede(nil)
	p := &handshake{conn: conn, br: bufio.NewReaderSize(conn, readBuffer), who: who, o: o}
	p.lease = newLease(o.Store, func() { supersede(ErrSuperseded) })
	interrupt := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(deadline.Past) }) // wakes the hello
	var s *Stream
	var err error
	hook.Run(func() { s, err = greet(p, ctx) }, func(why *hook.Failure) {
		if !interrupt() {
			err = context.Cause(ctx)
		}
		if why != nil { // in the Store
			err = storeError(why)
			defer why.Rethrow()
			defer func() { _ = conn.Close() }() // Rethrow skips the Close in establish
		}
		if err != nil {
			if p.made != nil {
				p.made.letGo()
			}
			p.sayWhyNot(err)
			err = errors.Join(err, p.lease.end(0, nil))
			return
		}
		p.lease.serve(s)
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// open does the opener's part of the hello.
func (p *handshake) open(ctx context.Context) (*Stream, error) {
	place, err := p.lease.look(ctx)
	if err != nil {
		return nil, err
	}
	p.ours = p.o.hello(helloOpen, place)
	p.ours.caps |= capConfirm
	if p.lease.before != nil {
		p.ours.caps |= capMoving
	}
	if err := p.say(); err != nil {
		return nil, err
	}
	if p.theirs, err = readHello(p.br, helloAccept); err != nil {
		return nil, err
	}
	place, err = p.lease.take(ctx, p)
	if err != nil {
		return nil, err
	}
	s, err := newStream(p, place)
	if err == nil {
		s.heard.Store(true)
	}
	if err == nil && p.theirs.caps&capConfirm != 0 {
		_, err = p.conn.Write(appendSeq(nil, kindAck, s.in.next-1))
	}
	return s, err
}

// accept does the accepting side's part of the hello. A failure before ACCEPT is reported with REFUSE.
func (p *handshake) accept(ctx context.Context) (s *Stream, err error) {
	p.ours.kind = helloAccept
	if p.theirs, err = readHello(p.br, helloOpen); err != nil {
		return nil, err
	}
	place, err := p.lease.look(ctx) // not earlier: a conn without a hello takes no Store over
	if err != nil {
		return nil, err
	}
	p.answer(place)
	if p.lease.before != nil {
		if place, err = p.takeOver(ctx, place); err != nil {
			return nil, err
		}
	}
	s, err = newStream(p, place)
	if err == nil && !p.said {
		err = p.say()
	}
	return s, err
}

// answer makes this side's ACCEPT. It asks an opener that supports this for a frame, if another stream may want the Store at the same time.
func (p *handshake) answer(place Place) {
	p.ours = p.o.hello(helloAccept, place)
	if p.o.Store != nil {
		p.ours.caps |= p.theirs.caps & capConfirm
	}
}

// takeOver takes the Store over at place, once the opener has taken over its own. An opener that cannot confirm this has done so before it
// opened.
func (p *handshake) takeOver(ctx context.Context, place Place) (Place, error) {
	if err := p.fits(place); err != nil {
		return place, err
	}
	if p.ours.caps&capConfirm == 0 {
		place, err := p.lease.take(ctx, p)
		p.answer(place)
		return place, err
	}
	if err := p.say(); err != nil {
		return place, err
	}
	if err := p.awaitConfirm(); err != nil {
		return place, err
	}
	return p.lease.take(ctx, p)
}

// say sends this side's hello.
func (p *handshake) say() error {
	p.said = true
	_, err := p.conn.Write(p.ours.append(make([]byte, 0, helloSize)))
	return err
}

// awaitConfirm waits for the opener's first frame: the opener has then taken over its own Store, or says why it will not (spec 3.8).
func (p *handshake) awaitConfirm() error {
	b, err := p.br.Peek(headerSize)
	if err != nil {
		return cutShort(err)
	}
	h, err := consumeHeader(b, p.o.WindowBytes)
	if err != nil || h.kind != kindClose {
		return err
	}
	_, _ = p.br.Discard(headerSize) // already peeked
	body := make([]byte, h.length)  // at most closeHead + maxText
	if _, err := io.ReadFull(p.br, body); err != nil {
		return cutShort(err)
	}
	code, text := consumeClose(body)
	return &Error{Op: "open", Remote: true, Code: code, Text: text}
}

// fits returns why this side, at position place, cannot continue as the hellos say, or nil.
func (p *handshake) fits(place Place) error {
	write, err := begin(p.ours, p.theirs)
	if err != nil {
		return err
	}
	read, err := begin(p.theirs, p.ours)
	if err != nil {
		return err
	}
	switch {
	case write > place.Next:
		return fmt.Errorf("%w: the reader goes on with record %d, and %d were written", ErrHistory, write, place.Next-1)
	case write <= place.Acked:
		return fmt.Errorf("%w: it has written on", ErrSuperseded)
	case place.Peer == p.theirs.log && read > place.Applied+1, place.Peer != p.theirs.log && place.Applied > 0:
		return fmt.Errorf("%w: the writer begins with record %d, and this side is at record %d of log %x",
			ErrHistory, read, place.Applied, place.Peer[:4])
	case place.Peer != p.theirs.log && p.lease.before != nil && read > 1:
		return fmt.Errorf("%w: the writer begins with record %d of log %x, and another stream has the place here",
			ErrHistory, read, p.theirs.log[:4])
	}
	return nil
}

// sayWhyNot reports to the peer why there will be no stream: with REFUSE or, after a hello of this side, with CLOSE.
func (p *handshake) sayWhyNot(err error) {
	var e *Error
	if p.ours.kind == 0 || errors.As(err, &e) && e.Remote || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return
	}
	code, text := codeOf(err), cut(err.Error())
	if code == CodeStore {
		text = "" // it may name things that concern only this side
	}
	words := make([]byte, 0, helloPrefix+6+len(text))
	if p.said {
		words = appendClose(words, code, text)
	} else {
		words = appendRefusal(words, code, text)
	}
	_ = p.conn.SetWriteDeadline(time.Now().Add(time.Second)) // a closed conn needs none
	_, _ = p.conn.Write(words)                               // the peer may be gone
}

// AcceptInfo describes a record stream to the accept function of Handle.
type AcceptInfo struct {
	Name    string
	Session *session.Session
}

type acceptFunc = func(AcceptInfo) (*Options, error)

// Handle calls serve, in a separate goroutine, with every record stream that a peer of at opens under name. accept decides whether to accept a
// stream, and with which Options. An error refuses it; the peer receives the error's text and, if it is an *Error with an application's
// Code, that code. If accept is nil, all streams are accepted, with default Options. The stream is closed when serve returns. If serve
// panics or ends its goroutine, the peer receives CodeInternal. If serve is nil, no stream is accepted. Handle panics where at does: if at
// is nil, or name is longer than 255 bytes.
func Handle(at session.Registrar, name string, accept func(AcceptInfo) (*Options, error), serve func(*Stream)) {
	if serve == nil {
		accept = refuse(accept)
	}
	at.SetStream(name, func(st *session.Stream) {
		s, err := answer(st, accept)
		if err != nil {
			return // the peer has been notified
		}
		hook.Run(func() { serve(s) }, func(why *hook.Failure) {
			if why == nil {
				_ = s.Close() // the peer itself detects missing records
				return
			}
			s.refuse(s.opError("serve", fmt.Errorf("%w: %w", errHandler, why)), CodeInternal, errHandler.Error())
			<-s.done
			why.Rethrow() // the session reports it, as the end of this goroutine
		})
	})
}

var errHandler = errors.New("the handler has failed")

// refuse returns an acceptFunc that calls accept, but accepts nothing.
func refuse(accept acceptFunc) acceptFunc {
	return func(info AcceptInfo) (*Options, error) {
		if accept != nil {
			opts, err := accept(info)
			err = hook.Err(err)
			if err != nil {
				return nil, err
			}
			if o := opts.withDefaults(); o.validate() != nil {
				return opts, nil // they are the reason
			}
		}
		return nil, errors.New("nothing serves it")
	}
}

func answer(st *session.Stream, ask acceptFunc) (*Stream, error) {
	who := identity{st.Name(), st.Session().Peer()}
	var opts *Options
	var refused error
	if ask != nil {
		opts, refused = ask(AcceptInfo{Name: st.Name(), Session: st.Session()})
		refused = hook.Err(refused)
	}
	if o := opts.withDefaults(); refused == nil {
		refused = o.validate()
	}
	if refused == nil {
		return establish(st.Session().Context(), st, who, opts, whileHeard(st.Session()), (*handshake).accept)
	}
	ctx, cancel := whileHeard(st.Session())(st.Session().Context(), (*Options)(nil).withDefaults().HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = st.SetDeadline(deadline.Past) })() // wakes the hello
	if _, err := readHello(st, helloOpen); err != nil {
		return nil, err
	}
	code, text := codeNotAccepted, refused.Error()
	if e, ok := errors.AsType[*Error](refused); ok && e.Code >= CodeApplication {
		code, text = e.Code, e.Text
	}
	_, _ = st.Write(appendRefusal(nil, code, cut(text))) // the peer may be gone
	return nil, fmt.Errorf("%w: %w", ErrNotTaken, refused)
}
