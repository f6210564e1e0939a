package resume

import (
	"context"
	"crypto/rand"
	"net"
	"slices"
)

// register makes a Conn and, if it is for Accept, reserves its place in the backlog.
func (l *Listener) register(h hello, w door) (*Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.err != nil, w == forAccept && l.reserved >= l.opts.Backlog, l.opts.MaxConns >= 0 && len(l.conns) >= l.opts.MaxConns:
		return nil, ErrBusy
	}
	_, _ = rand.Read(h.id[:]) // never fails
	c := newConn(context.Background(), &l.opts, h)
	c.server = l
	l.conns[c.id] = c
	if w == forAccept {
		l.reserved++
	}
	return c, nil
}

// release gives back a place in the backlog.
func (l *Listener) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reserved--
}

// deliver hands c to Accept.
func (l *Listener) deliver(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		c.flow.Close(net.ErrClosed)
		return
	}
	l.ready <- c
}

func (l *Listener) lookup(id connID) *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns[id]
}

// account keeps the lists of the Conns.
func (l *Listener) account(c *Conn, s State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := slices.Index(l.detached, c); at >= 0 {
		l.detached = slices.Delete(l.detached, at, at+1)
	}
	switch {
	case s.over():
		delete(l.conns, c.id)
	case s != StateDetached:
	case l.err != nil:
		c.flow.Close(errNoListener)
	default:
		l.detached = append(l.detached, c)
		if len(l.detached) > max(0, l.opts.MaxDetached) {
			l.leastOfDetached().flow.Close(errTooMany)
		}
	}
}

// leastOfDetached takes the Conn off the list that is the least worth keeping.
func (l *Listener) leastOfDetached() *Conn {
	at := max(0, slices.IndexFunc(l.detached, func(c *Conn) bool { return c.flow.Heard() == 0 }))
	c := l.detached[at]
	l.detached = slices.Delete(l.detached, at, at+1)
	return c
}
