package flow

import "context"

// AwaitSent waits until a carrier has taken everything written, or there is no carrier, or the flow is closed.
func (f *Flow) AwaitSent() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.err == nil && f.cur != nil && (f.out.unsent != nil || f.out.job.c != nil) {
		f.changed.Wait()
	}
}

// AwaitAcked waits until the other side has acknowledged everything written, over one carrier or several. If the flow is closed first, it
// returns why.
func (f *Flow) AwaitAcked() error { return f.AwaitAckedTo(forEver) }

// AwaitAckedTo is AwaitAcked for the bytes written before offset.
func (f *Flow) AwaitAckedTo(offset uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.cur
	var w ackWait
	defer w.end(f)
	for first := true; f.err == nil && f.out.acked < min(offset, f.out.end); first = false {
		if first || f.cur != asked || f.cur != nil && f.out.unsent == nil && f.out.unasked > 0 {
			asked = f.cur
			f.out.askDue = true
			f.sendLater()
		}
		w.begin(f)
		f.changed.Wait()
	}
	return f.err
}

// AwaitSettled waits until the flow runs on at most one carrier: until both directions have left the previous one. The error is ctx's, or
// the reason of Close.
func (f *Flow) AwaitSettled(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.changed.Broadcast()
	})
	defer stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.err == nil && f.old != nil && ctx.Err() == nil {
		f.changed.Wait()
	}
	if f.err != nil {
		return f.err
	}
	return ctx.Err()
}
