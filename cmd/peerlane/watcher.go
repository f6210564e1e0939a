package main

import (
	"context"
	"sync"

	"github.com/peerlane/peerlane/transfer"
)

// watcher shows the transfers that peers begin.
type watcher struct {
	display *display
	word    string // "to" or "from"
	ended   chan outcome
	over    chan struct{} // closed when nobody takes from ended any more
	wg      sync.WaitGroup

	mu   sync.Mutex
	open int // transfers whose outcome nobody has taken
}

// outcome is what has become of a transfer.
type outcome struct {
	transfer.Result
	peer string
	err  error
}

func newWatcher(d *display, word string) *watcher {
	return &watcher{display: d, word: word, ended: make(chan outcome), over: make(chan struct{})}
}

// begun shows a transfer.
func (w *watcher) begun(t *transfer.Transfer) {
	w.add(1)
	w.wg.Go(func() { w.watch(t) })
}

// watch shows t until it is over, and reports to ended.
func (w *watcher) watch(t *transfer.Transfer) {
	w.display.follow(t, w.word+" "+tail(t.Snapshot().Peer))
	r, err := t.Wait()
	select {
	case w.ended <- outcome{r, t.Snapshot().Peer, err}:
	case <-w.over:
	}
}

// tail returns the end of a Peer ID, by which people know it.
func tail(id string) string {
	if len(id) <= 6 {
		return id
	}
	return "…" + id[len(id)-6:]
}

// add changes open, and returns what it was.
func (w *watcher) add(n int) (was int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was = w.open
	w.open += n
	return was
}

// next waits for the end of a transfer; ok is false when ctx ends before.
func (w *watcher) next(ctx context.Context) (o outcome, ok bool) {
	select {
	case o = <-w.ended:
		w.add(-1)
		return o, true
	case <-ctx.Done():
		return o, false
	}
}

// rest reports the transfers that somebody is ending. It returns errInterrupted if one was cut off, or unless calm if none has arrived.
func (w *watcher) rest(report func(outcome) bool, calm bool) error {
	arrived, cut := false, false
	for w.add(0) > 0 {
		o := <-w.ended
		w.add(-1)
		ok := report(o)
		arrived, cut = arrived || ok, cut || !ok
	}
	if calm && cut || !calm && !arrived {
		return errInterrupted
	}
	return nil
}

// sayNotYet says why a transfer has not arrived. The peer may try again, so this process continues.
func (w *watcher) sayNotYet(o outcome) {
	w.display.printf("not yet  %s: %s", o.peer, safe(oneLine(o.err)))
	if isOutOfFiles(o.err) {
		w.display.printf("hint     %s", hintOutOfFiles)
	}
}

// wait waits for the transfers, which somebody has ended, and takes no more reports.
func (w *watcher) wait() {
	close(w.over)
	w.wg.Wait()
}
