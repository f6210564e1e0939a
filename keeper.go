package peerlane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/internal/backoff"
	"github.com/peerlane/peerlane/session"
)

// Pacing of a keeper in addition to Backoff.
const (
	briefLife = time.Second // a session that lived no longer slows the keeper down: see onEnded
	kickEvery = time.Second // how often a new connection may end a wait
)

// A Keeper keeps sessions to one peer and tag open. All methods are safe for concurrent use.
//
//	          ┌──────── ended, wait over, peer connects ──────┐
//	opening ──┴─opened──> open                                │
//	   └──failed──> waiting ──────────────────────────────────┘
//	   └──failed for good, or too often──> given up
type Keeper struct {
	client  *Client
	peer    peer.ID
	tag     protocol.ID
	cfg     KeeperConfig
	ctx     context.Context // ends with Close, or when the keeper gives up
	stop    context.CancelFunc
	conns   *network.NotifyBundle
	done    chan struct{}         // closed when run has ended
	results chan keeperResult     // of open, to run
	ended   chan *session.Session // to run
	kick    chan struct{}         // signals a new connection to the peer

	// The fields below belong to run.
	timer    *time.Timer
	waiting  bool      // for timer
	due      time.Time // when timer fires
	failures int       // failed attempts in a row
	brief    int       // short-lived sessions in a row
	round    int       // groups attempts that belong together: see onFailed
	came     bool      // the peer has connected during an attempt
	kicked   time.Time

	mu       sync.Mutex
	sessions []*session.Session // those that have not ended, as far as run knows
	turn     int                // where the next Get starts its search
	changed  chan struct{}      // closed when sessions or err change
	last     error              // of the last attempt, if it failed
	err      error
	closed   bool // Close has been called

	opening atomic.Int32 // attempts under way
	tasks   sync.WaitGroup
}

// keeperResult is the result of one attempt.
type keeperResult struct {
	session *session.Session
	err     error
	round   int
}

// Keep keeps separate sessions to tag at the peer open, opened as by Connect, until the Keeper or c is closed. It begins to open all of
// them at once, and does not wait for them. A session that has ended, on either side, is replaced at once. A session that is only detached
// resumes by itself, and is not replaced.
//
// When more sessions in a row than the keeper keeps have ended within a second of their opening, even if this side ended them, each further
// one is replaced after a wait, as after a failed attempt: the first after Backoff.Min, the next after twice that, up to Backoff.Max. A
// longer-lived session ends the row. After a failed attempt the keeper waits and makes a single attempt. A new connection to the peer ends
// a wait. A nil config means the defaults.
//
// The keeper gives up after MaxAttempts, and at once if no further attempt can succeed: ErrInvalid, ErrNotAllowed, ErrLegacyPeer,
// ErrPSKMismatch, ErrPSKRequired, ErrPSKTampered, session.ErrVersion. A peer that does not serve tag (ErrNotServed) may do so later. The
// keeper gives up with ErrStopped when the host is closed. While the keeper runs, it remembers the addresses at which the peer was reached,
// however long the peer is away.
//
// Keep returns ErrModernPSKRequired where Connect does, and ErrStopped after Close. If the peer, the tag or a field of config is out of
// range, it returns an error that matches ErrInvalid and names it.
func (c *Client) Keep(pid peer.ID, tag protocol.ID, config *KeeperConfig) (*Keeper, error) {
	if c.pool.ctx.Err() != nil {
		return nil, stopped("keep", pid, tag)
	}
	if config == nil {
		config = &KeeperConfig{}
	}
	if err := config.validate(); err != nil {
		return nil, err
	}
	if err := pid.Validate(); err != nil {
		return nil, invalidf("peer: %w", err)
	}
	for _, id := range []protocol.ID{tag, sessionTag(tag)} {
		if err := validateTag("tag", id); err != nil {
			return nil, err
		}
	}
	if c.pool.currentKeys() == nil && !c.cfg.AdmitAll {
		return nil, ErrModernPSKRequired
	}
	k := newKeeper(c, pid, tag, config.withDefaults())
	if !c.keepers.add(k) {
		k.stop()
		return nil, k.stopped()
	}
	c.pool.ends.expect(tag)
	c.pool.watchOnce.Do(c.pool.watch)
	c.pool.book.hold(pid)
	c.pool.host.Network().Notify(k.conns)
	go k.run()
	return k, nil
}

func newKeeper(c *Client, pid peer.ID, tag protocol.ID, cfg KeeperConfig) *Keeper {
	k := &Keeper{
		client: c, peer: pid, tag: tag, cfg: cfg,
		done: make(chan struct{}), results: make(chan keeperResult), ended: make(chan *session.Session),
		kick: make(chan struct{}, 1), changed: make(chan struct{}), timer: time.NewTimer(0),
	}
	k.timer.Stop()
	k.ctx, k.stop = context.WithCancel(context.Background())
	k.conns = &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) { k.onConnected(c) }}
	return k
}

// run opens sessions, and is the only caller of OnEvent. It owns the fields marked so. It ends when the keeper is closed or has given up,
// and then closes done.
func (k *Keeper) run() {
	defer close(k.done)
	defer k.client.pool.book.release(k.peer)
	hostDone := hostDone(k.client.pool.host)
	for k.ctx.Err() == nil {
		k.openMissing()
		select {
		case r := <-k.results:
			k.onResult(r)
		case s := <-k.ended:
			k.onEnded(s)
		case <-k.timer.C:
			k.waiting = false
		case <-k.kick:
			k.onKick()
		case <-hostDone:
			k.giveUp(hostClosed("connect", nil), max(k.failures, 1))
		case <-k.ctx.Done():
		}
	}
	k.timer.Stop()
	k.client.pool.host.Network().StopNotify(k.conns)
	k.tasks.Wait()
	k.mu.Lock()
	closed := k.closed
	k.mu.Unlock()
	if closed {
		_ = k.closeSessions() // Close closes the same sessions, and returns their errors
	}
}

// openMissing begins an attempt for each missing session, or only one if the last attempt failed.
func (k *Keeper) openMissing() {
	if k.waiting {
		return
	}
	k.mu.Lock()
	have := len(k.sessions)
	k.mu.Unlock()
	under := int(k.opening.Load())
	n := k.cfg.Sessions - have - under
	if k.failures > 0 {
		n = min(n, 1-under)
	}
	if under == 0 && n > 0 {
		k.came = false
	}
	for range n {
		k.opening.Add(1)
		round := k.round
		k.tasks.Go(func() { k.open(round) })
	}
}

// open makes one attempt, in its own goroutine that pool.openingTime bounds, and reports to run. No caller waits for the attempt, so it is
// not cut off while libp2p dials.
func (k *Keeper) open(round int) {
	s, err := k.client.connect(k.ctx, k.peer, k.tag, nil)
	select {
	case k.results <- keeperResult{s, err, round}:
	case <-k.ctx.Done():
		link{session: s}.drop()
	}
}

// onResult handles the result of an attempt.
func (k *Keeper) onResult(r keeperResult) {
	k.opening.Add(-1)
	if k.ctx.Err() != nil {
		link{session: r.session}.drop()
		return
	}
	if r.err != nil {
		k.onFailed(r)
		return
	}
	attempt := k.failures + 1
	if k.failures > 0 {
		k.failures = 0
		k.endWait()
	}
	k.change(func() {
		k.sessions, k.last = append(k.sessions, r.session), nil
	})
	context.AfterFunc(r.session.Context(), func() {
		select {
		case k.ended <- r.session:
		case <-k.ctx.Done():
		}
	})
	k.emit(KeeperEvent{Kind: KeeperOpened, Session: r.session, Attempt: attempt})
}

// onFailed gives up or waits. Attempts made side by side fail together and count once.
func (k *Keeper) onFailed(r keeperResult) {
	counts := r.round == k.round
	if counts {
		k.round++
		k.failures++
	}
	k.change(func() { k.last = r.err })
	event := KeeperEvent{Kind: KeeperFailed, Err: r.err, Attempt: max(k.failures, 1)}
	if isPermanent(r.err) || k.cfg.MaxAttempts > 0 && k.failures >= k.cfg.MaxAttempts {
		k.emit(event)
		k.giveUp(r.err, event.Attempt)
		return
	}
	if counts && !(k.came && k.mayKick()) {
		k.wait(k.failures, r.err)
	}
	event.Wait = k.left()
	k.emit(event)
	k.client.cfg.Hooks.ReportRetry(session.Retry{Op: "keep", Peer: k.peer.String(), Tag: string(k.tag), Attempt: event.Attempt, Wait: event.Wait,
		Err: r.err}, k.client.cfg.Logger)
}

// onEnded removes a session. The session is replaced at once, but a peer that accepts sessions only to end them must not keep this side
// busy: once each session has been replaced that way, the next ones wait as after a failure.
func (k *Keeper) onEnded(s *session.Session) {
	if k.ctx.Err() != nil {
		return
	}
	k.change(func() {
		k.sessions = slices.DeleteFunc(k.sessions, func(other *session.Session) bool { return other == s })
	})
	event := KeeperEvent{Kind: KeeperEnded, Session: s, Err: s.Err()}
	if time.Since(s.Snapshot().Started) > briefLife {
		k.brief = 0
	} else if k.brief++; k.brief > k.cfg.Sessions && !k.waiting {
		k.wait(k.brief-k.cfg.Sessions, nil)
	}
	event.Wait = k.left()
	k.emit(event)
}

// giveUp ends the keeper, but not its sessions.
func (k *Keeper) giveUp(cause error, attempts int) {
	err := &Error{Op: "keep", Peer: k.peer.String(), Link: string(k.tag), Outcome: session.NotSent,
		Text: fmt.Sprintf("gave up at attempt %d", attempts), Err: cause}
	k.change(func() {
		if k.err == nil {
			k.err = err
		}
	})
	k.client.keepers.remove(k)
	if logger := k.client.cfg.Logger; logger != nil {
		logger.Warn("keeper gave up", slog.String("peer", k.peer.String()), slog.String("tag", string(k.tag)),
			slog.Any("err", cause))
	}
	k.emit(KeeperEvent{Kind: KeeperGaveUp, Err: err, Attempt: attempts})
	k.stop()
}

// wait delays the next attempt, longer than Backoff says if the peer has asked for that, but never longer than Backoff.Max.
func (k *Keeper) wait(failures int, cause error) {
	d := backoff.Backoff(k.cfg.Backoff).Wait(failures)
	if e, ok := errors.AsType[*Error](cause); ok {
		d = max(d, min(e.RetryAfter, k.cfg.Backoff.Max))
	}
	k.waiting, k.due = true, time.Now().Add(d)
	k.timer.Reset(d)
}

// left returns the rest of the wait.
func (k *Keeper) left() time.Duration {
	if !k.waiting {
		return 0
	}
	return max(0, time.Until(k.due))
}

func (k *Keeper) endWait() {
	k.waiting = false
	k.timer.Stop()
}

// onConnected notifies run of a connection to the peer, unless an attempt has made it. It must not block.
func (k *Keeper) onConnected(c network.Conn) {
	if c.RemotePeer() != k.peer || c.Stat().Direction == network.DirOutbound && k.opening.Load() > 0 {
		return
	}
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// onKick ends the wait or, during an attempt, makes another one follow at once if the attempt fails.
func (k *Keeper) onKick() {
	if !k.waiting {
		k.came = true
	} else if k.mayKick() {
		k.endWait()
	}
}

// mayKick reports whether a new connection may end a wait now. If every attempt leads to a connection that fails, as with two keepers of a
// peer that drops both, there would otherwise be no wait at all.
func (k *Keeper) mayKick() bool {
	now := time.Now()
	if k.client.pool.refused.left(poolKey{k.peer, k.tag}) > 0 { // the peer is there, and has said when
		return false
	}
	if !k.kicked.IsZero() && now.Sub(k.kicked) < kickEvery {
		return false
	}
	k.kicked = now
	return true
}

// isPermanent reports whether err means that no further attempt can succeed.
func isPermanent(err error) bool {
	for _, permanent := range []error{ErrModernPSKRequired, ErrPSKMismatch, ErrPSKRequired, ErrPSKTampered, ErrNotAllowed,
		ErrInvalid, ErrLegacyPeer, ErrStopped, session.ErrVersion} {
		if errors.Is(err, permanent) {
			return true
		}
	}
	return false
}

// change calls f under mu, and wakes those who wait for a change.
func (k *Keeper) change(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *Keeper) emit(event KeeperEvent) {
	if k.cfg.OnEvent != nil {
		k.cfg.OnEvent(event)
	}
}

// Err returns nil while the keeper keeps sessions, and the reason afterwards: an error that matches ErrStopped once it was closed, or an
// *Error that wraps the error of the last attempt once it has given up. The first of the two stays.
func (k *Keeper) Err() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// Done returns a channel that is closed when the keeper has given up, or has been closed and its sessions have ended.
func (k *Keeper) Done() <-chan struct{} { return k.done }

// Close ends the keeper and closes its sessions in order, including those that it still has after giving up. It returns nil, or the errors
// of Session.Close for the sessions with undelivered work. A second Close waits for the first and returns the same. A handler of a session
// may call Close, which does not wait for it.
func (k *Keeper) Close() error {
	exemptCaller(k.Sessions())
	k.end()
	<-k.done
	err := k.closeSessions()
	k.client.keepers.remove(k)
	return err
}

// end makes the keeper end. The ends of its sessions are no events any more.
func (k *Keeper) end() {
	k.change(func() {
		k.closed = true
		if k.err == nil {
			k.err = k.stopped()
		}
	})
	k.stop()
}

func (k *Keeper) stopped() error { return stopped("keep", k.peer, k.tag) }

// closeSessions closes the sessions. run no longer adds any.
func (k *Keeper) closeSessions() error {
	k.mu.Lock()
	sessions := slices.Clone(k.sessions)
	k.mu.Unlock()
	return closeSessions(sessions)
}
