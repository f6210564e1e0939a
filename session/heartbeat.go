package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/internal/frame"
)

// heartbeat watches a session from a timer: whether the peer is silent, whether the carrier accepts written data, and whether frames that
// arrive in parts make progress. It costs nothing while data flows.
type heartbeat struct {
	s     *Session
	every time.Duration
	rtt   atomic.Int64 // nanoseconds; 0: not measured yet

	// Guarded by s.mu.
	timer     *time.Timer
	stopped   bool
	heardAt   time.Time // when the last sign of life came
	looked    time.Time // when the session was last looked at
	probed    time.Time // when the carrier was last probed
	probeBy   time.Time // when the carrier is given up unless a sign of life comes; zero: no probe in progress
	soon      bool      // the probe in progress is that of probeSoon
	owedSince time.Time // when an acknowledgement was first missed after heardAt; zero: none is
	answered  uint64    // received bytes for which the peer has been sent a sign
	pinged    time.Time // when pingedID was sent; zero once it is answered, and on another carrier
	pingedID  uint64    // of the last PING that measures the round trip
	pingWaits []pingWait
}

type pingWait struct {
	id   uint64
	done chan struct{}
}

// startHeartbeat starts the timer, which ends with the session.
func (s *Session) startHeartbeat() {
	every := min(s.cfg.WriteTimeout, s.cfg.ReadTimeout)
	if s.cfg.Heartbeat > 0 {
		every = min(every, s.cfg.Heartbeat, s.cfg.HeartbeatTimeout)
	}
	if s.cfg.OtherPath != nil {
		every = min(every, 2*suspectAfter)
	}
	h := &s.heartbeat
	s.mu.Lock()
	defer s.mu.Unlock()
	h.s, h.every, h.heardAt = s, max(every/4, 5*time.Millisecond), time.Now()
	if s.dialer {
		h.pingLocked(h.heardAt)
	}
	h.timer = time.AfterFunc(h.every, h.check)
}

// stop ends the timer.
func (h *heartbeat) stop() {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	h.stopped = true
	h.timer.Stop()
	for _, w := range h.pingWaits {
		close(w.done)
	}
	h.pingWaits = nil
}

// check looks at the session once, and ends it if it has been silent or stuck for too long.
func (h *heartbeat) check() {
	err := h.look(time.Now())
	switch {
	case err == nil:
		if h.isSuspect() && h.s.cfg.OtherPath(h.s) {
			h.probeSoon()
		}
	case h.s.carriers.flow != nil && errors.Is(err, errCarrier):
		h.s.carriers.flow.Detach(err)
	default:
		h.s.fail(h.s.lost("heartbeat", err))
	}
}

// errCarrier marks a failure of the carrier rather than of the peer.
var errCarrier = fmt.Errorf("the carrier is dead: %w", os.ErrDeadlineExceeded)

// onCarrier starts watching another carrier. s.mu is held.
func (h *heartbeat) onCarrier() {
	h.heardAt, h.pinged, h.probeBy, h.soon = time.Now(), time.Time{}, time.Time{}, false
	if h.s == nil {
		return
	}
	if h.s.dialer {
		h.pingLocked(h.heardAt) // the round trip is another one
	}
}

func (h *heartbeat) look(now time.Time) error {
	s := h.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.stopped || s.err != nil {
		return nil
	}
	h.timer.Reset(h.every)
	if h.awokeLocked(now) {
		h.probeLocked(now)
	}
	if s.out.overrun {
		return fmt.Errorf("the peer does not read: more than %d bytes of answers wait", maxUrgent)
	}
	if s.carriers.state == StateDetached {
		return nil
	}
	h.signLocked()
	if s.stuck() >= s.cfg.WriteTimeout {
		return fmt.Errorf("%w: nothing could be written for %v", errCarrier, s.cfg.WriteTimeout)
	}
	if s.requests.partial > 0 {
		if err := s.refuseStalledLocked(); err != nil {
			return err
		}
	}
	if at := s.lastHeard(); at.After(h.heardAt) {
		h.heardAt = at
	}
	if h.heardAt.After(h.probed) {
		h.probeBy, h.soon = time.Time{}, false
	}
	if !h.probeBy.IsZero() {
		left := h.probeBy.Sub(now)
		if left <= 0 {
			return fmt.Errorf("%w: no answer to a probe", errCarrier)
		}
		h.timer.Reset(min(h.every, left))
	}
	return h.onSilence(now)
}

// onSilence probes a silent peer, or gives it up. s.mu is held.
func (h *heartbeat) onSilence(now time.Time) error {
	cfg := &h.s.cfg
	silent := now.Sub(h.heardAt)
	if cfg.Heartbeat < 0 || silent < cfg.Heartbeat {
		return nil
	}
	left := cfg.HeartbeatTimeout - silent
	if left <= 0 {
		return fmt.Errorf("%w: the peer has been silent for %v", errCarrier, cfg.HeartbeatTimeout)
	}
	if h.pinged.IsZero() {
		h.pingLocked(now)
	}
	h.timer.Reset(min(h.every, left))
	return nil
}

// How soon a carrier is left when there is another path: Config.OtherPath.
const (
	suspectAfter = 750 * time.Millisecond // of silence
	suspectTime  = 750 * time.Millisecond // for the answer to a ping
)

// isSuspect reports whether the carrier is silent although the peer has bytes to acknowledge, and nobody has asked why.
func (h *heartbeat) isSuspect() bool {
	s := h.s
	if s.cfg.OtherPath == nil || s.carriers.flow == nil || !s.dialer {
		return false
	}
	unacked, _ := s.carriers.flow.Kept()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch {
	case unacked == 0:
		h.owedSince = time.Time{}
	case h.owedSince.Before(h.heardAt):
		h.owedSince = now
	}
	if unacked == 0 || s.err != nil || s.carriers.state == StateDetached || h.soon || h.stopped {
		return false
	}
	left := max(suspectAfter, 3*s.RTT()) - now.Sub(h.owedSince)
	if left > 0 {
		h.timer.Reset(min(h.every, left))
	}
	return left <= 0
}

// probeSoon asks the peer to answer, sooner than probeLocked does, also if that has asked already.
func (h *heartbeat) probeSoon() {
	s := h.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.stopped || s.err != nil || s.carriers.state == StateDetached || h.soon {
		return
	}
	backlog, _ := s.carriers.flow.Backlog() // if it is not known, little is under way
	now := time.Now()
	least := max(suspectTime, 4*s.RTT())
	d := min(max(least, least/2+backlog), h.probePatienceLocked()) // of little data the rate is not known well
	if by := now.Add(d); h.probeBy.IsZero() || by.Before(h.probeBy) {
		h.probeBy = by
	}
	h.probed, h.soon = now, true
	h.pingLocked(now)
	h.timer.Reset(min(h.every, d))
}

// probeTime is how long a peer has to answer, with nothing queued before the answer, after this side has slept or its network has
// changed.
const probeTime = 2 * time.Second

// probePatienceLocked returns how long the answer to a probe may take: the bytes already under way come first. It is at most the time
// without a sign of life after which the heartbeat would give the carrier up.
func (h *heartbeat) probePatienceLocked() time.Duration {
	most := h.s.cfg.WriteTimeout
	if h.s.cfg.Heartbeat > 0 {
		most = h.s.cfg.HeartbeatTimeout
	}
	most = max(most, probeTime)
	if backlog, known := h.s.carriers.flow.Backlog(); known {
		return min(probeTime+backlog, most)
	}
	return most
}

// maxDrift is how far the two clocks of a process that has not slept may drift apart between two looks.
const maxDrift = 2 * time.Second

// awokeLocked reports whether the machine has slept since the last look: the wall clock has advanced, and the monotonic one has not.
func (h *heartbeat) awokeLocked(now time.Time) bool {
	last := h.looked
	h.looked = now
	return !last.IsZero() && slept(now.Sub(last), now.Round(0).Sub(last.Round(0)))
}

// slept reports whether the machine has slept, given the time elapsed by the monotonic and by the wall clock.
func slept(monotonic, wall time.Duration) bool { return wall-monotonic > maxDrift }

// probeLocked asks the peer to answer within probePatienceLocked, and gives the carrier up if it does not. A detached session redials at
// once.
func (h *heartbeat) probeLocked(now time.Time) {
	s := h.s
	switch {
	case s.carriers.flow == nil:
	case s.carriers.state == StateDetached:
		s.kickRedial()
	case h.soon: // it has been asked, and has less time
	default:
		d := h.probePatienceLocked()
		h.probed, h.probeBy = now, now.Add(d)
		h.pingLocked(now)
		h.timer.Reset(min(h.every, d))
	}
}

// Probe asks the peer to answer at once. If no answer comes within 2 s plus the time for the bytes already under way, or within
// HeartbeatTimeout if that is less, the session looks for another carrier. Call it when you know that the network has changed. On a
// detached session it ends the wait for the next attempt.
func (s *Session) Probe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.heartbeat.s != nil {
		s.heartbeat.probeLocked(time.Now())
	}
}

// lastHeard returns when the carrier last gave a sign of life.
func (s *Session) lastHeard() time.Time {
	if s.carriers.flow != nil {
		return s.carriers.flow.LastHeard()
	}
	at := s.started.Add(time.Duration(s.bare.heardAt.Load()))
	if moved := s.bare.under.Moved(); moved.After(at) {
		return moved
	}
	return at
}

// stuck returns how long the carrier has accepted none of the data being written.
func (s *Session) stuck() time.Duration {
	if s.carriers.flow != nil {
		return s.carriers.flow.Stuck()
	}
	if began := s.bare.writeBegan.Load(); began != 0 {
		return s.elapsed() - time.Duration(began)
	}
	return 0
}

// pingLocked sends a PING.
func (h *heartbeat) pingLocked(now time.Time) {
	h.s.out.lastPing++
	h.pinged, h.pingedID = now, h.s.out.lastPing
	h.s.controlLocked(frame.Header{Type: frame.TypePing, ID: h.s.out.lastPing}, nil)
}

// onPong handles the answer to the PING id and to all before it. s.mu is held.
func (h *heartbeat) onPong(id uint64) {
	if id >= h.pingedID && !h.pinged.IsZero() {
		h.measured(time.Since(h.pinged))
		h.pinged = time.Time{}
	}
	h.s.onReceipts(id)
	kept := h.pingWaits[:0]
	for _, w := range h.pingWaits {
		if w.id <= id {
			close(w.done)
		} else {
			kept = append(kept, w)
		}
	}
	h.pingWaits = kept
}

// measured records a round trip, for the carrier too if it wants to know.
func (h *heartbeat) measured(rtt time.Duration) {
	h.rtt.Store(int64(max(rtt, 1)))
	if c, ok := h.s.Conn().(interface{ Measured(time.Duration) }); ok {
		c.Measured(max(rtt, 1))
	}
}

// Ping returns how long the peer takes to answer. The error matches the ctx's error, or says why the session ended.
func (s *Session) Ping(ctx context.Context) (time.Duration, error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return 0, s.Err()
	}
	began := time.Now()
	s.heartbeat.pingLocked(began)
	w := pingWait{id: s.out.lastPing, done: make(chan struct{})}
	s.heartbeat.pingWaits = append(s.heartbeat.pingWaits, w)
	s.mu.Unlock()
	select {
	case <-w.done:
		if err := s.Err(); err != nil {
			return 0, err
		}
		return time.Since(began), nil
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		s.heartbeat.pingWaits = slices.DeleteFunc(s.heartbeat.pingWaits, func(x pingWait) bool { return x.id == w.id })
		return 0, &Error{Op: "ping", Peer: s.peer, Err: ctx.Err()}
	}
}

// RTT returns the last measured round trip, or 0 before there is one.
func (s *Session) RTT() time.Duration { return time.Duration(s.heartbeat.rtt.Load()) }
