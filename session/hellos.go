package session

import (
	"net"

	"github.com/peerlane/peerlane/codes"
)

// hellos are the hellos of one peer that are not complete: at most perPeer that are answered, each of which ends within HandshakeTimeout,
// and as many again that wait for the end of one. They wait because a dialing side that keeps to the limit does not know when this side has
// noticed the end of a hello. The end of a hello wakes the first that waits, of the same peer: what it costs does not depend on how many of
// other peers wait.
type hellos struct {
	answered int
	waiting  []chan bool // each is told, once, whether it has a place
}

// beginHello takes a place among the peer's hellos in progress, or waits for one.
func (a *Acceptor) beginHello(conn net.Conn, peer string) *Error {
	a.mu.Lock()
	h, wait := a.takePlaceLocked(peer)
	a.mu.Unlock()
	if wait != nil && !<-wait || h == nil {
		return &Error{Op: "hello", Peer: peer, Code: codes.Unavailable, Text: "too many hellos at once"}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed && len(a.sessions) == 0 { // draining sessions may need another carrier
		a.leavePlaceLocked(peer)
		return &Error{Op: "hello", Peer: peer, Code: codes.GoingAway}
	}
	a.conns[conn] = struct{}{}
	return nil
}

// takePlaceLocked takes a place, or stands in line for one, or returns nil if there is no room for either.
func (a *Acceptor) takePlaceLocked(peer string) (h *hellos, wait <-chan bool) {
	h = a.hellos[peer]
	switch {
	case h == nil:
		h = &hellos{answered: 1}
		a.hellos[peer] = h
		return h, nil
	case h.answered < a.perPeer:
		h.answered++
		return h, nil
	case len(h.waiting) >= a.perPeer || a.closed:
		return nil, nil
	}
	turn := make(chan bool, 1)
	h.waiting = append(h.waiting, turn)
	return h, turn
}

// endHello gives the place of a hello to the next one of the same peer.
func (a *Acceptor) endHello(conn net.Conn, peer string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.conns, conn)
	a.leavePlaceLocked(peer)
}

func (a *Acceptor) leavePlaceLocked(peer string) {
	h := a.hellos[peer]
	if len(h.waiting) > 0 {
		h.waiting[0] <- true
		h.waiting = h.waiting[1:]
		return
	}
	if h.answered--; h.answered == 0 {
		delete(a.hellos, peer)
	}
}

// refuseWaiting gives no place to those that wait.
func (h *hellos) refuseWaiting() {
	for _, turn := range h.waiting {
		turn <- false
	}
	h.waiting = nil
}
