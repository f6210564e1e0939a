package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/peerlane/peerlane/transfer"
)

// Bounds of what peers make this side keep by asking. Peer IDs are free, so that there is a bound for all of them too.
const (
	mostQuestions     = 16   // that wait for an answer, with the one that is asked
	mostQuestionsEach = 2    // of one peer: it may have begun again before the loss of its first attempt is known
	mostRefused       = 1024 // peers that are not asked about again
)

// decider decides on what is pushed.
type decider struct {
	dest    transfer.Destination
	display *display
	asker   *asker // nil: every peer that gets so far is on the list

	mu      sync.Mutex
	waiting map[string]int // questions, by peer
	total   int            // of them
	refused map[string]bool
	order   []string // of refused, the oldest first
}

func newDecider(dest transfer.Destination, d *display) *decider {
	return &decider{dest: dest, display: d, waiting: make(map[string]int), refused: make(map[string]bool)}
}

var errDeclined = &transfer.Error{Code: transfer.CodeDenied, Text: "declined by the user"}

// admit is for transfer.ServiceConfig.Admit.
func (d *decider) admit(peer string) error {
	if d.isRefused(peer) {
		return errDeclined
	}
	return nil
}

// decide is for transfer.ServiceConfig.Receive.
func (d *decider) decide(ctx context.Context, in transfer.Incoming) (*transfer.Destination, error) {
	if d.asker == nil {
		d.display.receives(in.ID, true)
		return &d.dest, nil
	}
	asked, err := d.begin(in.Peer)
	if err != nil {
		return nil, err
	}
	defer asked()
	wasRefused := false
	yes, err := d.asker.ask(ctx, questionText(in), func() bool {
		wasRefused = d.isRefused(in.Peer)
		return wasRefused
	})
	switch {
	case ctx.Err() != nil:
		d.display.printf("the peer has given up")
		return nil, ctx.Err()
	case err != nil:
		return nil, err
	case wasRefused:
		return nil, errDeclined
	case !yes:
		d.refuse(in.Peer)
		d.display.printf("refused  %q of %s: it is not asked about again while this runs", safe(in.Name), in.Peer)
		return nil, errDeclined
	}
	d.display.receives(in.ID, true)
	return &d.dest, nil
}

// questionText returns the question about a push, after a list of what it brings if that is not one file or folder.
func questionText(in transfer.Incoming) string {
	list, without := "", ""
	if tops := topsOf(in.Entries); len(tops) > 1 {
		list = offersText(tops) + "\n"
	}
	if in.LeftOut > 0 {
		without = fmt.Sprintf(", %s left out", itemsText(in.LeftOut))
	}
	return fmt.Sprintf("%s%s wants to push %q: %s, %s%s. Take it? [y/n]",
		list, in.Peer, safe(in.Name), filesText(in.Files), bytesText(float64(in.Bytes)), without)
}

// begin counts a question of a peer until asked is called. The error is CodeBusy if too many wait: the peer tries again by itself.
func (d *decider) begin(peer string) (asked func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.total >= mostQuestions || d.waiting[peer] >= mostQuestionsEach {
		return nil, &transfer.Error{Code: transfer.CodeBusy, Text: "too many uploads wait for an answer: try again later"}
	}
	d.total++
	d.waiting[peer]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.total--
		if d.waiting[peer]--; d.waiting[peer] == 0 {
			delete(d.waiting, peer)
		}
	}, nil
}

// refuse remembers that the user has declined a peer, and forgets the oldest one if there are too many.
func (d *decider) refuse(peer string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refused[peer] {
		return
	}
	d.refused[peer] = true
	if d.order = append(d.order, peer); len(d.order) > mostRefused {
		delete(d.refused, d.order[0])
		d.order = d.order[1:]
	}
}

func (d *decider) isRefused(peer string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refused[peer]
}
