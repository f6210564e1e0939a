package oldsession

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// The kinds of resume/SPEC.md, 3.2, and the codes of 3.7.
const (
	streamNew    = 0x01
	streamResume = 0x02
	streamAccept = 0x03
	streamRefuse = 0x04

	refuseProtocol, refuseVersion, refuseUnknown, refuseStale = 1, 2, 3, 4
)

// greeting is a hello of resume/SPEC.md, 3.1.
type greeting struct {
	Magic                     [4]byte
	Version, Kind, Live, Code byte
	ID                        [16]byte
	Attempt, Patience, Buffer uint32
	Received                  uint64
}

func (g greeting) write(w io.Writer) error {
	g.Magic, g.Version = [4]byte{0xF5, 'p', 'l', 'r'}, 1
	b, err := binary.Append(nil, binary.BigEndian, g)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

// readGreeting reads a greeting of one of the kinds whose fields fit it.
func readGreeting(r io.Reader, kinds ...byte) (g greeting, err error) {
	if err := binary.Read(r, binary.BigEndian, &g); err != nil {
		return g, lossOf(err)
	}
	zero, blank := [16]byte{}, greeting{Magic: g.Magic, Version: 1, Kind: g.Kind, Code: g.Code}
	begins := g.Attempt == 0 && g.Live == 0 && g.Received == 0 && g.Buffer >= 4096
	resumes := g.Attempt > 0 && g.Live <= 1 && g.Buffer == 0 && g.Patience == 0
	var ok bool
	switch g.Kind {
	case streamNew:
		ok = begins && g.ID == zero && g.Code == 0
	case streamResume:
		ok = resumes && g.ID != zero && g.Code == 0
	case streamAccept:
		ok = (begins || resumes) && g.ID != zero && g.Code == 0
	case streamRefuse:
		ok = g == blank && g.Code != 0
	}
	if g.Magic != [4]byte{0xF5, 'p', 'l', 'r'} || g.Version != 1 || !ok || !bytes.Contains(kinds, []byte{g.Kind}) {
		return g, breach("greeting %+v", g)
	}
	return g, nil
}

// resumable is a stream that outlives its carriers.
type resumable struct {
	*flow
	s       *Session
	name    string
	id      [16]byte
	attempt uint32
	turn    chan struct{} // holds a value while a carrier is being found or taken
}

func (s *Session) newResumable(st *Stream, g greeting) *resumable {
	patience := min(s.flow.patience, time.Duration(g.Patience)*time.Millisecond)
	r := &resumable{s: s, name: st.Name, id: g.ID, turn: make(chan struct{}, 1)}
	r.flow = newFlow(s.cfg.Window, uint64(g.Buffer), patience, dropStream)
	return r
}

// run gives a stream its first carrier, and keeps it until it has ended.
func (r *resumable) run(st *Stream, c *carrier, reopen func(ctx context.Context) (bool, error)) {
	s := r.s
	_ = r.attach(c, 0, false) // a new flow takes its carrier
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil { // adopt ends it
		delete(s.own, st)
		return
	}
	s.running.Go(func() { watch(s.cfg.Heartbeat, r.over, r.sign, r.probe, r.silent) })
	s.running.Go(func() {
		r.keep(reopen)
		r.running.Wait()
		s.mu.Lock()
		delete(s.resumed, r.id)
		s.mu.Unlock()
		s.forget(st)
	})
}

func (f *flow) probe() { f.locked(func() { f.ask = true }) }

// greeting returns what this side says of a stream that begins.
func (s *Session) greeting(kind byte) greeting {
	return greeting{Kind: kind, Patience: uint32(s.flow.patience.Milliseconds()), Buffer: uint32(s.cfg.Window)}
}

// OpenResumable opens a stream that outlives its carriers. Only the side that dialed may.
func (s *Session) OpenResumable(ctx context.Context, name string) (*Stream, error) {
	if !s.can(capResume | capResumeStreams) {
		return nil, &Failure{Code: CodeUnsupported, NotSent: true}
	}
	st := &Stream{Name: name, s: s}
	if err := s.admit(st); err != nil {
		return nil, err
	}
	c, g, err := s.greetStream(ctx, name, resumableNew, s.greeting(streamNew))
	if err != nil {
		s.forget(st)
		return nil, err
	}
	r := s.newResumable(st, g)
	r.run(st, c, r.reopen)
	return st, s.adopt(st, r)
}

// greetStream opens a carrier of a resumable stream, and returns the answer to g on it.
func (s *Session) greetStream(ctx context.Context, name string, kind byte, g greeting) (*carrier, greeting, error) {
	c, err := s.openCarrier(ctx, map[byte][]byte{fieldName: []byte(name), fieldResumable: {kind}})
	if err != nil {
		return nil, g, err
	}
	_ = c.raw.SetDeadline(time.Now().Add(handshakeTimeout)) // a closed conn fails in the exchange
	answer := greeting{}
	if err = g.write(c); err == nil {
		answer, err = readGreeting(c, streamAccept, streamRefuse)
	}
	switch {
	case err != nil:
	case answer.Kind == streamRefuse:
		err = &Failure{Code: uint32(answer.Code), Remote: true}
	case answer.Attempt != g.Attempt, g.Attempt > 0 && answer.ID != g.ID, answer.Live > g.Live:
		err = breach("%+v does not answer %+v", answer, g)
	}
	if err != nil {
		c.drop(CodeCancelled)
		return nil, g, err
	}
	_ = c.raw.SetDeadline(time.Time{}) // likewise
	return c, answer, nil
}

// reopen finds another carrier for the stream.
func (r *resumable) reopen(ctx context.Context) (final bool, err error) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	received, live := r.settled(ctx)
	if !live {
		received = r.pause()
	}
	r.attempt++
	g := greeting{Kind: streamResume, ID: r.id, Attempt: r.attempt, Received: received}
	if live {
		g.Live = 1
	}
	c, answer, err := r.s.greetStream(ctx, r.name, resumableAgain, g)
	var f *Failure
	switch {
	case err == nil:
		return false, r.attach(c, answer.Received, answer.Live == 1)
	case errors.As(err, &f) && f.Remote && !f.Refused: // the stream's own greeting says so
		return f.Code == refuseProtocol || f.Code == refuseVersion || f.Code == refuseUnknown, err
	}
	return isFinal(err) || codeOf(err) == CodeProtocol, err
}

// moveStreams moves the streams of a session that has moved.
func (s *Session) moveStreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.own {
		if r, ok := st.lane.(*resumable); ok && s.err == nil {
			s.running.Go(func() {
				ctx, cancel := context.WithTimeout(s.ctx, reopenTimeout)
				defer cancel()
				_, _ = r.reopen(ctx) // it stays where it is
			})
		}
	}
}

// answerNew opens a resumable stream of the other side.
func (s *Session) answerNew(st *Stream, c *carrier) {
	g, err := readGreeting(c, streamNew)
	g.ID = newID()
	r := s.newResumable(st, g)
	if err == nil {
		accept := s.greeting(streamAccept)
		accept.ID = g.ID
		r.turn <- struct{}{} // it may be resumed as soon as ACCEPT is out, and is to have a carrier first
		s.mu.Lock()
		s.resumed[r.id] = r
		s.mu.Unlock()
		err = accept.write(c)
	}
	if err != nil {
		s.mu.Lock()
		delete(s.resumed, r.id)
		s.mu.Unlock()
		s.forget(st)
		c.drop(CodeProtocol)
		return
	}
	_ = c.raw.SetDeadline(time.Time{}) // a closed conn fails in the flow
	r.run(st, c, nil)
	<-r.turn
	s.serveOwn(st, r)
}

// answerAgain takes a further carrier of such a stream.
func (s *Session) answerAgain(c *carrier) {
	g, err := readGreeting(c, streamResume)
	s.mu.Lock()
	r := s.resumed[g.ID]
	s.mu.Unlock()
	var code byte
	switch {
	case err != nil:
		code = refuseProtocol
	case r == nil:
		code = refuseUnknown
	default:
		code = r.take(g, c)
	}
	if code != 0 {
		_ = (greeting{Kind: streamRefuse, Code: code}).write(c) // who is gone need not be told
		_ = c.Close()                                           // likewise
	}
}

// take takes a further carrier, or returns the code of the refusal.
func (r *resumable) take(g greeting, c *carrier) (code byte) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	default:
		return refuseStale
	}
	r.mu.Lock()
	beyond := g.Received > r.reached
	r.mu.Unlock()
	switch {
	case g.Attempt <= r.attempt:
		return refuseStale
	case beyond:
		return refuseProtocol
	}
	r.attempt = g.Attempt
	ctx, cancel := context.WithTimeout(r.s.ctx, handshakeTimeout)
	defer cancel()
	received, live := r.settled(ctx)
	accept := greeting{Kind: streamAccept, ID: r.id, Attempt: g.Attempt, Live: 1}
	if !live || g.Live == 0 {
		received, accept.Live = r.pause(), 0
	}
	accept.Received = received
	if accept.write(c) != nil {
		c.drop(CodeCancelled)
		return 0
	}
	_ = c.raw.SetDeadline(time.Time{})            // a closed conn fails in the flow
	_ = r.attach(c, g.Received, accept.Live == 1) // its error has ended the stream
	return 0
}

// CloseWrite implements lane.
func (r *resumable) CloseWrite() error {
	r.finish()
	return nil
}

// CloseRead says that nothing more is read.
func (r *resumable) CloseRead() error {
	r.stop()
	return nil
}

// Close implements lane. The stream lives until all of it has arrived, or for its patience.
func (r *resumable) Close() error {
	r.stop()
	r.finish()
	r.locked(func() {
		r.closing = true
		r.closeIfDone()
	})
	time.AfterFunc(r.patience, func() { r.locked(func() { r.close(fmt.Errorf("%w: %w", ErrLost, net.ErrClosed)) }) })
	return nil
}

// A lastWord is why a stream has ended that this side has reset.
type lastWord struct{ code uint32 }

func (w *lastWord) Error() string { return fmt.Sprintf("oldsession: reset with code %d", w.code) }

// Reset implements lane.
func (r *resumable) Reset(code uint32) error {
	r.locked(func() {
		r.dropped = r.err == nil
		r.close(&lastWord{endCode(code)})
	})
	return nil
}

func (r *resumable) fail(error) { _ = r.Reset(CodeCancelled) }

// dropStream ends a carrier of a stream, for good unless end is nil.
func dropStream(c *carrier, end error) {
	var word *lastWord
	switch {
	case end == nil:
		c.drop(CodeCancelled)
	case errors.As(end, &word):
		c.drop(LastWord + word.code)
	case end == net.ErrClosed: // a wrapped one is no end in order
		_ = c.Close() // all of it has arrived
	case codeOf(end) == CodeProtocol:
		c.drop(LastWord + CodeProtocol)
	default:
		c.drop(LastWord + CodeCancelled)
	}
}
