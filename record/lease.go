package record

import "sync"

// lease is a stream's hold on its Store, from before there is a stream.
type lease struct {
	store Store // nil: none, or it has not been taken

	mu     sync.Mutex
	lost   bool
	stream *Stream
}

// begin takes the store, if there is one.
func (l *lease) begin(st Store) (Place, error) {
	if st == nil {
		return noStore(), nil
	}
	place, err := st.Begin(l.onLost)
	if err != nil {
		return place, storeError(err)
	}
	l.store = st
	return place, nil
}

// onLost ends the stream that has the store, now or as soon as there is one.
func (l *lease) onLost() {
	l.mu.Lock()
	s := l.stream
	l.lost = true
	l.mu.Unlock()
	if s != nil {
		s.refuse(s.opError("carry", ErrSuperseded), CodeSuperseded, "")
	}
}

// serve gives the hold to a stream, which gives it back when it ends.
func (l *lease) serve(s *Stream) {
	l.mu.Lock()
	l.stream = s
	lost := l.lost
	l.mu.Unlock()
	if lost {
		l.onLost()
	}
}

// end gives the store back when there is no stream.
func (l *lease) end() error {
	if l.store == nil {
		return nil
	}
	if err := l.store.End(0); err != nil {
		return storeError(err)
	}
	return nil
}
