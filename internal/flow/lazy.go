package flow

import (
	"errors"
	"time"
)

// A lazy flow has an application that takes its time: received bytes stay with the owner of the flow until the application has taken them,
// and each side sends no more than the other has room for. The owner shares the flow's lock, so that what it keeps changes together with
// the flow. resume.Conn is such an owner.

// Lazy configures a lazy flow, whose received data counts as taken only once ConsumeLocked says so, or with the FIN. Its owner calls Receive,
// and not Read. LastWord may be nil.
type Lazy struct {
	// Credit is how many bytes the other side has room for.
	Credit int
	// FirstCarrier is how long the flow waits for its first carrier, in place of the ResumeWindow.
	FirstCarrier time.Duration
	// Space returns a buffer for some of the next want bytes. It is called without the lock. An error that matches
	// ErrProtocol closes the flow.
	Space func(want int) ([]byte, error)
	// Received is called locked after each Read of a carrier: n bytes are in the buffer that Space has returned, and news is whether bytes
	// or the end have arrived.
	Received func(n int, news bool)
	// LastWord reports whether the error of a carrier was the other side's last word, after it has closed the flow for that reason.
	LastWord func(error) bool
	// Note is called locked for each event, in order. It must not call the flow.
	Note func(Event, error)
}

// An Event is the argument of Lazy.Note.
type Event uint8

// The events of a flow.
const (
	Attached Event = iota // there is a new carrier
	Detached              // the last carrier has failed, with the error
	Closed                // the flow is closed, for the reason of the error
)

func (f *Flow) tell(e Event, err error) {
	if f.cfg.Lazy != nil {
		f.cfg.Lazy.Note(e, err)
	}
}

// Lock locks the flow, for the methods whose name ends in Locked.
func (f *Flow) Lock() { f.mu.Lock() }

// Unlock is the end of Lock.
func (f *Flow) Unlock() { f.mu.Unlock() }

// Receive does one Read of a carrier of a lazy flow, and waits while there is none. It reports whether the flow is still open. It holds no
// Space while nothing arrives.
func (f *Flow) Receive() bool {
	lazy := f.cfg.Lazy
	c, from, err := f.startReading()
	if err != nil {
		return false
	}
	var got batch
	if err = f.take(c, nil, from, &got); err == nil && c.read.left > 0 && c.read.at == from {
		var p []byte
		if p, err = lazy.Space(c.read.left); err == nil {
			err = f.take(c, p, from, &got)
		}
	}
	f.mu.Lock()
	if broken := f.endReadingLocked(c, from, &got); broken != nil {
		err, got.n = broken, 0
	}
	lazy.Received(got.n, got.n > 0 || got.fin)
	f.mu.Unlock()
	switch {
	case errors.Is(err, ErrProtocol):
		f.Close(err)
	case err != nil && (lazy.LastWord == nil || !lazy.LastWord(err)):
		f.failed(c, err)
	}
	return true
}

// ConsumeLocked records that the application has taken n more bytes.
func (f *Flow) ConsumeLocked(n int) {
	in := &f.in
	if in.finished {
		return // all data counts as taken
	}
	in.taken += uint64(n)
	f.answer(in.taken-f.out.told >= uint64(f.cfg.Window/4)) // spec 5.5
}

// StopLocked notifies the other side that this side takes no more bytes.
func (f *Flow) StopLocked() {
	if !f.out.stopped {
		f.out.stopped, f.out.stopDue = true, true
		f.sendLater()
	}
}

// WriteInTurnLocked is Write, except that the bytes of several calls do not mix. It releases the lock while it waits.
func (f *Flow) WriteInTurnLocked(p []byte) (int, error) {
	for f.out.turn {
		if err := f.writeError(); err != nil {
			return 0, err
		}
		f.changed.Wait()
	}
	f.out.turn = true
	n, err := f.write(p, nil)
	f.out.turn = false
	f.changed.Broadcast()
	return n, err
}

// CloseDeliveredLocked closes the flow with net.ErrClosed once everything is delivered.
func (f *Flow) CloseDeliveredLocked() {
	f.out.closing = true
	f.closeIfDone()
}

// Ends says which directions of a flow have ended.
type Ends struct {
	Out     bool // no more can be written
	In      bool // the other side's end has been received
	Stopped bool // the other side takes no more bytes
}

// EndsLocked returns which directions have ended.
func (f *Flow) EndsLocked() Ends {
	return Ends{Out: f.out.finished, In: f.in.finished, Stopped: f.in.stopped}
}

// UnackedLocked returns how many bytes of segments are unacknowledged.
func (f *Flow) UnackedLocked() int { return f.out.held }

// Delivered returns the offset up to which the other side has acknowledged the written bytes, and whether that is all of them. The end of
// the direction counts as one byte.
func (f *Flow) Delivered() (offset uint64, all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.acked, f.out.acked == f.out.end
}

// Undelivered returns how many bytes were not acknowledged when the flow was closed, or 0 while it is open. The end of the direction counts
// as one byte unless the other side has ended too.
func (f *Flow) Undelivered() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.undelivered
}
