package psk

import "sync/atomic"

// A turn is a mutex made of a channel. Whoever waits for one is idle in the eyes of testing/synctest, so that virtual
// time passes; a goroutine that waits for a sync.Mutex is not.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take() { t <- struct{}{} }

func (t turn) give() { <-t }

// A single runs a func once; every caller of do waits for it and gets its result. It is a sync.Once made of a channel, for
// the reason that turn is.
type single struct {
	began atomic.Bool
	done  chan struct{} // closed when err is set
	err   error
}

func newSingle() *single { return &single{done: make(chan struct{})} }

func (s *single) do(f func() error) error {
	if s.began.CompareAndSwap(false, true) {
		s.err = f()
		close(s.done)
	}
	<-s.done
	return s.err
}
