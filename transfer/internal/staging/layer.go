package staging

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// cvSize is how many bytes a layer has for each piece (spec 5.6).
const cvSize = 32

// layer is what is known of a file's pieces. Staging.mu guards it.
type layer struct {
	cvs   []byte
	have  ranges // of pieces
	fresh ranges // those of have that the journal does not have
}

// layerPiece is what a round writes of one layer.
type layerPiece struct {
	id     uint32
	pieces ranges
	bytes  [][]byte // of each range
	file   File
}

type root struct{ sum [32]byte }

// SetLayer keeps cvs, 32 bytes for each piece of the file id from the piece first on. The next Sync makes them durable, before it says
// so of the pieces. It is CodeProtocol for what is no multiple of 32, for more pieces than the file has KiB, for a file that is
// published, and for another value than is had: Reset comes before that.
func (s *Staging) SetLayer(id uint32, first int, cvs []byte) error {
	if err := s.begin("layer"); err != nil {
		return err
	}
	defer s.endCall()
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.need("layer", id)
	if err != nil {
		return err
	}
	n := int64(len(cvs)) / cvSize
	most := p.entry.Size/1024 + 1
	switch {
	case len(cvs)%cvSize != 0 || first < 0 || int64(first) > most-n:
		return errorf("layer", p.entry.Path, fault.CodeProtocol, "%d bytes from piece %d on, of a file of %d", len(cvs), first, p.entry.Size)
	case p.isPublished() || p.use == useReset:
		return errorf("layer", p.entry.Path, fault.CodeProtocol, "it is published, or being reset")
	}
	l := s.layers[id]
	if l == nil {
		l = &layer{}
	}
	if err := l.set(Range{int64(first), int64(first) + n}, cvs); err != nil {
		return wrap("layer", p.entry.Path, err)
	}
	s.layers[id] = l
	return nil
}

// set takes the CVs of the pieces r.
func (l *layer) set(r Range, cvs []byte) error {
	at := func(piece int64) int { return int(piece * cvSize) }
	news := ranges{r}.without(l.have)
	for _, same := range (ranges{r}).without(news) {
		if !bytes.Equal(l.cvs[at(same.From):at(same.To)], cvs[at(same.From-r.From):at(same.To-r.From)]) {
			return errorf("layer", "", fault.CodeProtocol, "other hashes are had of pieces %d to %d", same.From, same.To)
		}
	}
	if grow := at(r.To) - len(l.cvs); grow > 0 {
		l.cvs = append(l.cvs, make([]byte, grow)...)
	}
	copy(l.cvs[at(r.From):], cvs)
	for _, n := range news {
		l.have, l.fresh = l.have.add(n), l.fresh.add(n)
	}
	return nil
}

// Layer returns what SetLayer was given of the file id, from its first piece on, with zeros for what is not had; nil when that is
// nothing, or the file is published. It is CodeProtocol for no file.
func (s *Staging) Layer(id uint32) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.need("layer", id); err != nil {
		return nil, err
	}
	if l := s.layers[id]; l != nil {
		return slices.Clone(l.cvs), nil
	}
	return nil, nil
}

// TrimLayer forgets what SetLayer was given of the file id, but for the pieces that keep has. What a run that was killed has
// left of a piece's hash, and not of the piece, may be the hash of something that is not there any more. It is CodeProtocol for no file.
func (s *Staging) TrimLayer(id uint32, keep []Range) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.need("layer", id); err != nil {
		return err
	}
	l := s.layers[id]
	if l == nil {
		return nil
	}
	for _, stale := range l.have.without(ranges(slices.Clone(keep)).sorted()) {
		clear(l.cvs[stale.From*cvSize : stale.To*cvSize])
		l.have, l.fresh = l.have.without(ranges{stale}), l.fresh.without(ranges{stale})
	}
	return nil
}

// SetRoot keeps the hash of the whole file id. The next Sync makes it durable. It is CodeProtocol for another one than is had: Reset
// comes before that.
func (s *Staging) SetRoot(id uint32, sum [32]byte) error {
	if err := s.begin("root"); err != nil {
		return err
	}
	defer s.endCall()
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.need("root", id)
	if err != nil {
		return err
	}
	switch old, found := s.roots[id]; {
	case found && old.sum == sum:
		return nil
	case found:
		return errorf("root", p.entry.Path, fault.CodeProtocol, "another hash of the file is had")
	case p.use == useReset:
		return errorf("root", p.entry.Path, fault.CodeProtocol, "it is being reset")
	}
	s.roots[id] = root{sum}
	s.newRoots = append(s.newRoots, id)
	return nil
}

// Root returns what SetRoot was given of the file id, and whether there is that.
func (s *Staging) Root(id uint32) ([32]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, found := s.roots[id]
	return r.sum, found
}

// hasRoot reports whether the file id has a root. The caller has mu.
func (s *Staging) hasRoot(id uint32) bool {
	_, found := s.roots[id]
	return found
}

// takeLayersLocked takes the roots and layers that the journal does not have.
func (s *Staging) takeLayersLocked(r *round) {
	for _, id := range s.newRoots {
		if s.hasRoot(id) {
			r.roots = append(r.roots, id)
		}
	}
	s.newRoots = nil
	for id, l := range s.layers {
		if len(l.fresh) == 0 {
			continue
		}
		take := layerPiece{id: id, pieces: l.fresh}
		for _, n := range l.fresh {
			take.bytes = append(take.bytes, slices.Clone(l.cvs[n.From*cvSize:n.To*cvSize]))
		}
		l.fresh = nil
		s.find(id).layered = true
		r.layers = append(r.layers, take)
	}
}

// returnLayersLocked leaves what a round has taken to the next.
func (s *Staging) returnLayersLocked(r *round) {
	s.newRoots = append(s.newRoots, r.roots...)
	for _, taken := range r.layers {
		if l := s.layers[taken.id]; l != nil {
			l.fresh = l.fresh.merge(taken.pieces)
		}
	}
}

// writeLayers writes those of the round, and leaves their files open.
func (s *Staging) writeLayers(r *round) error {
	for i := range r.layers {
		l := &r.layers[i]
		f, isNew, err := s.openLayer(l.id)
		if err != nil {
			return err
		}
		l.file = f
		if isNew {
			s.mu.Lock()
			s.newNames = true
			s.mu.Unlock()
		}
		for i, n := range l.pieces {
			if _, err := f.WriteAt(l.bytes[i], n.From*cvSize); err != nil {
				return err
			}
		}
	}
	return nil
}

// openLayer opens the file of a layer, and makes it if need be.
func (s *Staging) openLayer(id uint32) (f File, isNew bool, err error) {
	name := s.fileName(id, ".layer")
	if f, _, err = s.openSame(name); !errors.Is(err, fs.ErrNotExist) {
		return f, false, err
	}
	f, err = s.fs.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	return f, true, err
}

// closeLayers closes what writeLayers has opened.
func (r *round) closeLayers() {
	for i := range r.layers {
		if f := r.layers[i].file; f != nil {
			_ = f.Close() // what was written to it is synced, or will be written again
			r.layers[i].file = nil
		}
	}
}

// loadLayer reads the pieces that the journal has of a layer. What the file does not have any more is not had.
func (s *Staging) loadLayer(id uint32, have ranges) error {
	name := s.fileName(id, ".layer")
	info, err := s.fs.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && !info.Mode.IsRegular(): // nobody's, and in the way
		return s.fs.Remove(name)
	}
	b, f, err := s.read(name)
	if err != nil {
		return err
	}
	_ = f.Close() // it was read
	l := &layer{}
	for _, n := range have {
		if n.To > int64(len(b))/cvSize {
			break
		}
		if err := l.set(n, b[n.From*cvSize:n.To*cvSize]); err != nil {
			return err
		}
	}
	l.fresh = nil
	if len(l.have) > 0 {
		s.layers[id] = l
	}
	return nil
}
