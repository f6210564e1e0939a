package peerlane

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/peerlane/peerlane/session"
)

// Sessions returns the sessions that are alive now, including detached ones.
func (k *Keeper) Sessions() []*session.Session {
	k.mu.Lock()
	defer k.mu.Unlock()
	var alive []*session.Session
	for _, s := range k.sessions {
		if s.Err() == nil {
			alive = append(alive, s)
		}
	}
	return alive
}

// Get returns the session with the fewest calls in flight, among those that are on a carrier and accept new work. If there is none, it
// waits for one until ctx ends; the error then matches ctx's error and names the failure of the last attempt. After the keeper has given
// up, Get returns the remaining sessions, and once there are none the error of Err. After Close it returns that error at once.
func (k *Keeper) Get(ctx context.Context) (*session.Session, error) {
	for {
		s, detached, changed, err := k.pick()
		if s != nil || err != nil {
			return s, err
		}
		if ctx.Err() != nil {
			return nil, k.getFailed(ctx.Err())
		}
		awaitOne(ctx, detached, changed)
	}
}

// pick returns the session for Get; or the detached sessions that may resume, and a channel that is closed at the next change; or an error
// when there is nothing to wait for.
func (k *Keeper) pick() (best *session.Session, detached []*session.Session, changed <-chan struct{}, err error) {
	k.mu.Lock()
	sessions, closed := slices.Clone(k.sessions), k.closed
	first := k.turn
	k.turn++
	changed, err = k.changed, k.err
	k.mu.Unlock()
	if closed {
		return nil, nil, nil, err
	}
	least := 0
	for i := range sessions {
		s := sessions[(first+i)%len(sessions)]
		switch v := s.Snapshot(); {
		case v.Draining:
		case v.State == session.StateDetached:
			detached = append(detached, s)
		case best == nil || v.InFlightOut < least:
			best, least = s, v.InFlightOut
		}
	}
	if best != nil || len(detached) > 0 {
		err = nil
	}
	return best, detached, changed, err
}

// awaitOne waits until one of the detached sessions is no longer detached, changed is closed, or ctx ends.
func awaitOne(ctx context.Context, detached []*session.Session, changed <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	var waits sync.WaitGroup
	for _, s := range detached {
		s.Probe()
		waits.Go(func() {
			_ = s.AwaitCarrier(ctx) // the caller checks again
			cancel()
		})
	}
	select {
	case <-changed:
	case <-ctx.Done():
	}
	cancel()
	waits.Wait()
}

// getFailed returns the error of a Get whose ctx ended with cause.
func (k *Keeper) getFailed(cause error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.last != nil {
		cause = fmt.Errorf("%w: %w", cause, k.last)
	}
	return &Error{Op: "get", Peer: k.peer.String(), Link: string(k.tag), Outcome: session.NotSent, Err: cause}
}

// A keeperSet holds the keepers of a client that have neither given up nor been closed.
type keeperSet struct {
	mu     sync.Mutex
	closed bool
	all    map[*Keeper]struct{}
}

// add reports whether k has been added, which fails once the client has been closed.
func (s *keeperSet) add(k *Keeper) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.all == nil {
		s.all = make(map[*Keeper]struct{})
	}
	s.all[k] = struct{}{}
	return true
}

func (s *keeperSet) remove(k *Keeper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, k)
}

// close ends the keepers, accepts no more, and closes them in the background. The caller waits for wg.
func (s *keeperSet) close(wg *sync.WaitGroup) {
	s.mu.Lock()
	s.closed = true
	all := slices.Collect(maps.Keys(s.all))
	s.mu.Unlock()
	for _, k := range all {
		k.end()
		wg.Go(func() { _ = k.Close() }) // Client.Close, which calls this, closes the same sessions
	}
}
