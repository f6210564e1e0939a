package session

import (
	"fmt"
	"sync"

	"github.com/peerlane/peerlane/frame"
)

// A CallFunc answers the calls of a tag, those to the link "". The reply is sent before it may change. An error is told
// to the caller: its text with CodeApplication, or, if it is an *Error with a Code, that Code, Text and RetryAfter.
type CallFunc func(m *Message) (reply []byte, err error)

// A Mux holds the handlers of the sessions that share it. Handlers may be set at any time and hold for what arrives
// afterwards. It is safe for concurrent use, and its zero value is NewMux's. A panic in a handler is told to the sender as
// CodeInternal.
type Mux struct {
	parent *Mux // asked for what is not set here; may be nil

	mu       sync.RWMutex
	call     CallFunc
	links    map[string]func(*Message)
	anyLink  func(*Message)
	streams  map[string]func(*Stream)
	anyNamed func(*Stream)
	codecs   map[string]Codec
}

// NewMux returns a Mux with the JSON codec and no handlers.
func NewMux() *Mux {
	return &Mux{
		links:   make(map[string]func(*Message)),
		streams: make(map[string]func(*Stream)),
		codecs:  map[string]Codec{JSON.Name(): JSON},
	}
}

// Child returns a Mux whose handlers and codecs are those of x, now and later, except for what is set on itself.
func (x *Mux) Child() *Mux {
	child := NewMux()
	child.parent = x
	delete(child.codecs, JSON.Name())
	return child
}

// SetCall sets who answers calls to the link "". Nil unsets it.
func (x *Mux) SetCall(fn CallFunc) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.call = fn
}

// SetLink sets who handles messages to the link name, one-way or not; nil unsets it. It panics when name is longer than
// 255 bytes.
func (x *Mux) SetLink(name string, fn func(*Message)) {
	setHandler(x, &x.links, name, fn)
}

// SetDefaultLink sets who handles messages to links that nobody else handles. Nil unsets it.
func (x *Mux) SetDefaultLink(fn func(*Message)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.anyLink = fn
}

// SetStream sets who serves streams opened under name; nil unsets it. The stream is closed when fn returns. It panics
// when name is longer than 255 bytes.
func (x *Mux) SetStream(name string, fn func(*Stream)) {
	setHandler(x, &x.streams, name, fn)
}

// SetDefaultStream sets who serves streams that nobody else serves. Nil unsets it.
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

// handler returns who answers a request or one-way message to link: one of the two, or neither.
func (x *Mux) handler(link string) (call CallFunc, fn func(*Message)) {
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

// stream returns who serves streams opened under name, or nil.
func (x *Mux) stream(name string) func(*Stream) {
	var anyNamed func(*Stream)
	for ; x != nil; x = x.parent {
		x.mu.RLock()
		fn := x.streams[name]
		if anyNamed == nil {
			anyNamed = x.anyNamed
		}
		x.mu.RUnlock()
		if fn != nil {
			return fn
		}
	}
	return anyNamed
}
