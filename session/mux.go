package session

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// A callFunc answers the calls of a tag.
type callFunc = func(m *Message) (reply []byte, err error)

// A Mux holds the handlers of the sessions that share it. Handlers may be set at any time and apply to later arrivals. A Mux is safe for
// concurrent use, and its zero value is NewMux's. The sender receives a handler's panic as codes.Internal.
type Mux struct {
	parent *Mux                          // used for anything not set here; may be nil
	chain  atomic.Pointer[[]Interceptor] // what Intercept has added; nil: nothing

	mu       sync.RWMutex
	guard    *frame.Failure // refuses links and streams; nil: none
	call     callFunc
	links    map[string]func(*Message)
	anyLink  func(*Message)
	streams  map[string]func(*Stream)
	anyNamed func(*Stream)
	codecs   map[string]Codec
}

// A Registrar has handlers for the streams that peers open: a peerlane.Server, a peerlane.Client, a Mux.
type Registrar interface {
	SetStream(name string, fn func(*Stream))
}

// NewMux returns a Mux with the JSON codec and no handlers.
func NewMux() *Mux {
	return &Mux{
		links:   make(map[string]func(*Message)),
		streams: make(map[string]func(*Stream)),
		codecs:  map[string]Codec{JSON.Name(): JSON},
	}
}

// Child returns a Mux with the handlers and codecs of x, now and later, except for those set on itself.
func (x *Mux) Child() *Mux {
	child := NewMux()
	child.parent = x
	delete(child.codecs, JSON.Name())
	return child
}

// Guard makes x refuse all links and streams with the Code, Text and RetryAfter of refusal, whatever is set on x and its parents. Only what
// SetCall has set is served. Nil ends that. It applies to the sessions of x itself, not to those of its children.
func (x *Mux) Guard(refusal *Error) {
	var guard *frame.Failure
	if refusal != nil {
		guard = &frame.Failure{Code: refusal.Code, RetryAfter: refusal.RetryAfter, Text: refusal.Text}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.guard = guard
}

// SetCall sets the handler of the tag's calls, which are those to the link "". Nil unsets it. The reply is sent before it may change. An error
// reaches the caller: its text with codes.Application or, if it is an *Error with a Code, that Code, Text and RetryAfter.
func (x *Mux) SetCall(fn func(m *Message) (reply []byte, err error)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.call = fn
}

// SetLink sets the handler of messages, one-way or not, to the link name. Nil unsets it. It panics if name is longer than 255 bytes.
func (x *Mux) SetLink(name string, fn func(*Message)) {
	setHandler(x, &x.links, name, fn)
}

// SetDefaultLink sets the handler of messages to links without a handler. Nil unsets it.
func (x *Mux) SetDefaultLink(fn func(*Message)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.anyLink = fn
}

// SetStream sets the handler of streams opened under name. Nil unsets it. The stream is closed when fn returns. It panics if name is longer
// than 255 bytes.
func (x *Mux) SetStream(name string, fn func(*Stream)) {
	setHandler(x, &x.streams, name, fn)
}

// SetDefaultStream sets the handler of streams without a handler. Nil unsets it.
func (x *Mux) SetDefaultStream(fn func(*Stream)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.anyNamed = fn
}

func setHandler[H any](x *Mux, m *map[string]func(H), name string, fn func(H)) {
	if len(name) > frame.MaxName {
		panic(fmt.Sprintf("session: name of %d bytes, at most %d", len(name), frame.MaxName))
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if fn == nil {
		delete(*m, name)
		return
	}
	if *m == nil {
		*m = make(map[string]func(H))
	}
	(*m)[name] = fn
}

// handler returns the handler of requests or one-way messages to link: one of the two, or neither and why there is none.
func (x *Mux) handler(link string) (call callFunc, fn func(*Message), refusal frame.Failure) {
	x.mu.RLock()
	guard := x.guard
	if guard != nil {
		call = x.call
	}
	x.mu.RUnlock()
	switch {
	case guard == nil:
		call, fn = x.find(link)
	case link != "":
		call = nil
	}
	switch {
	case call != nil || fn != nil:
		return call, fn, refusal
	case guard != nil:
		return nil, nil, *guard
	}
	return nil, nil, frame.Failure{Code: codes.NotFound, Text: fmt.Sprintf("no handler for link %q", link)}
}

// find is handler without a guard: a handler of the name, of the nearest Mux that has one, and else the nearest default.
func (x *Mux) find(link string) (call callFunc, fn func(*Message)) {
	var anyLink func(*Message)
	for ; x != nil; x = x.parent {
		x.mu.RLock()
		fn, call = x.links[link], x.call
		if anyLink == nil {
			anyLink = x.anyLink
		}
		x.mu.RUnlock()
		switch {
		case fn != nil:
			return nil, fn
		case link == "" && call != nil:
			return call, nil
		}
	}
	return nil, anyLink
}

// stream returns the handler of streams opened under name, or why there is none.
func (x *Mux) stream(name string) (fn func(*Stream), refusal frame.Failure) {
	x.mu.RLock()
	guard := x.guard
	x.mu.RUnlock()
	if guard != nil {
		return nil, *guard
	}
	var anyNamed func(*Stream)
	for ; x != nil; x = x.parent {
		x.mu.RLock()
		fn := x.streams[name]
		if anyNamed == nil {
			anyNamed = x.anyNamed
		}
		x.mu.RUnlock()
		if fn != nil {
			return fn, refusal
		}
	}
	if anyNamed == nil {
		return nil, frame.Failure{Code: codes.NotFound, Text: fmt.Sprintf("nobody serves stream %q", name)}
	}
	return anyNamed, refusal
}

// RegisterCodec makes c known, for sending and for what arrives. It returns an error for a nil codec, and for a name that
// is empty, longer than 255 bytes, or taken.
func (x *Mux) RegisterCodec(c Codec) error {
	if c == nil {
		return errors.New("session: codec is nil")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	name := c.Name()
	if name == "" || len(name) > frame.MaxName {
		return fmt.Errorf("session: codec name of %d bytes, want 1 to %d", len(name), frame.MaxName)
	}
	if _, taken := x.codecs[name]; taken || name == jsonName && x.parent == nil {
		return fmt.Errorf("session: codec %q is already registered", name)
	}
	if x.codecs == nil {
		x.codecs = make(map[string]Codec)
	}
	x.codecs[name] = c
	return nil
}

// codec returns the codec called name, JSON for "", or an error that matches ErrUnsupported.
func (x *Mux) codec(name string) (Codec, error) {
	if name == "" {
		return JSON, nil
	}
	for ; x != nil; x = x.parent {
		x.mu.RLock()
		c := x.codecs[name]
		x.mu.RUnlock()
		if c != nil {
			return c, nil
		}
	}
	if name == jsonName {
		return JSON, nil
	}
	return nil, &Error{Op: "codec", Link: name, Code: codes.Unsupported, Outcome: NotSent,
		Text: "no such codec on this side: RegisterCodec it"}
}
