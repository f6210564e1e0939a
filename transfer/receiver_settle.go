package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/peerlane/peerlane/transfer/internal/staging"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// Written data is settled, which means synced, named and reported, after this many bytes or this time.
const (
	settleBytes = 32 << 20
	mostDirty   = 2 * settleBytes // the most that the end of the process may lose: writers then wait for a sync
	settleFiles = 2048
	settleEvery = 2 * time.Second
	tellEvery   = 200 * time.Millisecond
)

// completeWait bounds the wait for the answer to COMPLETE. The files are already in their places, whatever the answer.
const completeWait = 10 * time.Second

// settleAll settles written data until every file is in its place. It owns the state's Sync, Publish and Finish.
func (r *receiver) settleAll() error {
	if err := r.makeEmpty(); err != nil {
		return err
	}
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		r.mu.Lock()
		all := r.left == len(r.whole) // nothing else is expected
		due := len(r.whole) >= settleFiles || all
		r.mu.Unlock()
		if due || r.st.Dirty() >= settleBytes || time.Since(last) >= settleEvery {
			if err := r.settleOnce(); err != nil {
				return err
			}
			last = time.Now()
			if done, err := r.finish(); done || err != nil {
				return err
			}
		}
		r.ack()
		select {
		case <-r.settle:
		case <-tick.C:
		case <-r.ctx.Done():
			r.settleLast()
			return context.Cause(r.ctx)
		}
	}
}

// makeEmpty creates the files without bytes.
func (r *receiver) makeEmpty() error {
	for _, id := range r.empty {
		if err := r.stage(func() error { return r.st.WriteFile(id, nil) }); err != nil {
			return err
		}
		r.mu.Lock()
		r.wholeLocked(id, fileBusy)
		r.mu.Unlock()
	}
	return nil
}

// settleLast syncs the written data of a transfer that ends early.
func (r *receiver) settleLast() {
	_ = r.st.Sync() // only the reason for the end of the transfer counts
}

// awaitSync waits while too many written bytes are not synced, or until the receiver ends.
func (r *receiver) awaitSync() {
	for r.st.Dirty() >= mostDirty {
		r.mu.Lock()
		synced := r.synced
		r.mu.Unlock()
		if r.st.Dirty() < mostDirty {
			return
		}
		r.kick()
		select {
		case <-synced:
		case <-r.ctx.Done():
			return
		}
	}
}

// tellSynced wakes the goroutines that wait for a sync.
func (r *receiver) tellSynced() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.synced)
	r.synced = make(chan struct{})
}

// settleOnce names complete files and makes written data durable. It pauses on a full disk.
func (r *receiver) settleOnce() error {
	defer r.tellSynced()
	r.mu.Lock()
	whole := r.whole
	r.whole = nil
	r.mu.Unlock()
	written := r.t.meter.verified.Load()
	named := make(map[uint32]error, 0)
	if len(whole) > 0 {
		for _, f := range r.st.Publish(whole) {
			named[f.ID] = f.Err
		}
	}
	full := r.settled(whole, named)
	if full == nil {
		if err := r.st.Sync(); CodeOf(err) == CodeNoSpace {
			full = err
		} else if err != nil {
			return err
		}
	}
	if full != nil {
		r.pause(full)
		if err := r.wantLost(); err != nil {
			return err
		}
		return r.wait(fullRetry)
	}
	if r.t.meter.isPaused() {
		r.pause(nil)
	}
	r.t.meter.durable.Store(min(written, r.t.meter.verified.Load())) // some data may have been forgotten since
	return nil
}

// wait waits for d, or for the end of the receiver, which it returns.
func (r *receiver) wait(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

// settled records which files have their names and which do not. It returns the error of files held up by a full disk, which are tried
// again.
func (r *receiver) settled(whole []uint32, failed map[uint32]error) (full error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range whole {
		err := failed[id]
		switch {
		case err == nil:
			r.files[id] = filePlaced
			r.left--
			r.t.meter.filesDone.Add(1)
		case CodeOf(err) == CodeNoSpace:
			full = err
			r.whole = append(r.whole, id)
		default: // it stays, for another run when its name is free
			r.left--
			r.stuck = append(r.stuck, err)
		}
	}
	return full
}

// mostStuck is how many files an error names.
const mostStuck = 5

// firstOf joins the first errors, and adds the number of the others.
func firstOf(errs []error) error {
	if more := len(errs) - mostStuck; more > 0 {
		errs = append(slices.Clone(errs[:mostStuck]), fmt.Errorf("and %d more files like these", more))
	}
	return errors.Join(errs...)
}

// failLocked marks a file as failed on this side, and notifies the origins.
func (r *receiver) failLocked(id uint32, err *Error) {
	if !r.drop(id) {
		return
	}
	err.Path = r.entries[id].Path
	why := whyOf(err)
	for _, o := range r.origins {
		_ = o.ctl.send(wire.KindFailed, false, func(b []byte) []byte { return wire.AppendFailed(b, id, why) }) // a failure shows at the reader
	}
	r.t.fileFailed(err)
	r.kick()
}

// ack reports the progress to the origins, if it has changed.
func (r *receiver) ack() {
	m := r.t.meter
	a := wire.Ack{Durable: uint64(max(0, m.durable.Load())), Verified: uint64(max(0, m.verified.Load())), Published: uint32(m.filesDone.Load())}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.origins {
		if o.told != a {
			o.told = a
			_ = o.ctl.send(wire.KindAck, false, a.Append) // a failure shows at the reader
		}
	}
}

// finish ends the transfer when every file is in its place or has failed.
func (r *receiver) finish() (done bool, err error) {
	r.mu.Lock()
	left, stuck := r.left, r.stuck
	r.mu.Unlock()
	if left > 0 {
		return false, nil
	}
	if len(stuck) > 0 {
		return true, firstOf(stuck)
	}
	r.t.meter.setPhase(PhaseFinish)
	failed := 0
	for id, s := range r.files { // nothing changes them any more
		if s == fileFailed {
			failed++
			err := r.st.Adopt(uint32(id)) // the file is skipped: its sender no longer has it, or its name is taken
			if CodeOf(err) == CodeProtocol {
				return false, r.wait(tellEvery) // the last piece is being written
			}
			if err != nil {
				return true, err
			}
		}
	}
	if err := r.st.Finish(); err != nil {
		if CodeOf(err) != CodeNoSpace {
			return true, err
		}
		r.pause(err)
		return false, r.wait(fullRetry)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.t.meter
	m.durable.Store(m.verified.Load())
	r.over, r.sum = true, wire.Summary{
		Bytes: uint64(m.verified.Load()), Files: uint32(m.filesDone.Load()), Failed: uint32(failed),
		Durable: r.o.Sync != staging.SyncNone,
	}
	close(r.ended) // before any origin can answer
	for _, o := range r.origins {
		_ = o.ctl.send(wire.KindComplete, false, r.sum.Append) // a failure shows at the reader
		o.ctl.hurry(completeWait)
	}
	return true, nil
}
