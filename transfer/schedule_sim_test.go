package transfer

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

const pieceSize = b3tree.MinPieceSize

// zeroLayers has the layer and root of files of n pieces that are all zeros, by n.
var zeroLayers = map[int]*zeroLayer{}

type zeroLayer struct {
	cvs  []b3tree.CV
	root b3tree.Root
}

func layerOf(t require.TestingT, pieces int) *zeroLayer {
	if l := zeroLayers[pieces]; l != nil {
		return l
	}
	shape, err := b3tree.ShapeOf(int64(pieces) * pieceSize)
	require.NoError(t, err)
	l := &zeroLayer{}
	for i := range pieces {
		cv, err := shape.ZeroCV(i)
		require.NoError(t, err)
		l.cvs = append(l.cvs, cv)
	}
	l.root, err = shape.Fold(l.cvs)
	require.NoError(t, err)
	zeroLayers[pieces] = l
	return l
}

// filesOfPieces returns the entries of files, each of as many whole pieces of zeros; 0 is a folder, and -1 a file of 100 bytes.
func filesOfPieces(t require.TestingT, hashed bool, pieces ...int) []manifest.Entry {
	entries := make([]manifest.Entry, len(pieces))
	for i, n := range pieces {
		e := manifest.Entry{ID: uint32(i), Kind: manifest.KindFile, Path: fmt.Sprint(i), Size: int64(n) * pieceSize}
		switch {
		case n == 0:
			e = manifest.Entry{ID: uint32(i), Kind: manifest.KindDir, Path: fmt.Sprint(i)}
		case n < 0:
			e.Size = 100
		case hashed && n > 1:
			e.Hash = layerOf(t, n).root
		}
		entries[i] = e
	}
	return entries
}

// scheduleOf returns a schedule of files that are all missing.
func scheduleOf(entries []manifest.Entry, hashed bool) *schedule {
	s := newSchedule()
	s.entries, s.hashed, s.files = entries, hashed, make([]fileState, len(entries))
	for i := range entries {
		if entries[i].Kind == manifest.KindFile {
			s.left++
		} else {
			s.files[i] = filePlaced
		}
	}
	return &s
}

// peer is the other end of a supplier: it sends what it is asked for, in any order.
type peer struct {
	supplier
	queue []key // wanted from it, and not sent
	asks  []ask
}

// sim is a schedule with its suppliers, without a network or a disk.
type sim struct {
	t     require.TestingT
	s     *schedule
	peers []*peer
}

func newSim(t require.TestingT, hashed bool, pieces ...int) *sim {
	return &sim{t: t, s: scheduleOf(filesOfPieces(t, hashed, pieces...), hashed)}
}

// join attaches another supplier, with a window.
func (m *sim) join(window int64) *peer {
	p := &peer{supplier: newSupplier(true)}
	p.window = window
	m.peers = append(m.peers, p)
	m.s.attach(&p.supplier)
	m.plan()
	return p
}

// leave detaches a supplier. With isEnd, it does not come back.
func (m *sim) leave(p *peer, isEnd bool) {
	m.peers = slices.DeleteFunc(m.peers, func(other *peer) bool { return other == p })
	m.s.detach(&p.supplier)
	if isEnd {
		for id := range m.s.supplierEnded() {
			m.lack(id)
		}
	}
	m.plan()
}

// lack fails a file that nobody has, as the receiver does.
func (m *sim) lack(id uint32) {
	if m.s.files[id] == fileWhole || m.s.files[id] == filePlaced {
		return
	}
	delete(m.s.active, id)
	m.s.drop(id)
}

// plan requests all that may be requested.
func (m *sim) plan() {
	for _, p := range m.peers {
		before := maps.Clone(p.wanted)
		q := m.s.next(&p.supplier)
		if q.fresh {
			p.queue = nil
		}
		p.asks = append(p.asks, q.asks...)
		keys := m.expand(q.wants)
		p.queue = append(p.queue, keys...)
		for k := range p.wanted {
			if _, was := before[k]; !was {
				require.Contains(m.t, keys, k, "marked as wanted, and not requested")
			}
		}
		for _, k := range keys {
			require.Contains(m.t, p.wanted, k)
			require.NotContains(m.t, before, k, "requested twice of one supplier")
		}
	}
}

// expand returns the pieces that a WANT names, as a sender does.
func (m *sim) expand(wants []wire.Want) (keys []key) {
	for _, w := range wants {
		if w.Pieces > 0 {
			for i := range w.Pieces {
				keys = append(keys, keyOf(w.File, int(w.Piece+i)))
			}
			continue
		}
		for id := w.File; id < w.File+w.Files; id++ {
			if e := &m.s.entries[id]; e.Kind == manifest.KindFile && e.Size > 0 {
				keys = append(keys, keyOf(id, 0))
			}
		}
	}
	return keys
}

// send makes a supplier send the piece at i of its queue, and the receiver verify and write it.
func (m *sim) send(p *peer, i int, isBad bool) {
	k := p.queue[i]
	p.queue = slices.Delete(p.queue, i, i+1)
	switch m.s.claim(&p.supplier, k) {
	case refused:
		require.Fail(m.t, "a piece that was requested is refused", "%d of %d", k.piece(), k.file())
	case taken:
		switch {
		case isBad:
			if m.s.refute(&p.supplier, k) {
				m.leave(p, true)
			}
		case m.s.active[k.file()] == nil:
			m.s.complete(k.file(), fileBusy)
		default:
			m.arrive(m.s.active[k.file()], k.piece())
		}
	}
	m.plan()
}

// arrive records a verified piece of a file of several.
func (m *sim) arrive(a *active, i int) {
	if !m.s.here(a, i, layerOf(m.t, a.shape.Pieces()).cvs[i]) {
		return
	}
	if a.tree != nil {
		m.s.complete(a.id, fileActive)
		return
	}
	if o, next, ok := m.s.askAny(a); ok {
		for _, p := range m.peers {
			if &p.supplier == o {
				p.asks = append(p.asks, next)
			}
		}
	}
}

// answer makes a supplier answer what it was asked first.
func (m *sim) answer(p *peer) {
	q := p.asks[0]
	p.asks = p.asks[1:]
	a := m.s.active[q.file]
	if a == nil || a.asked != &p.supplier {
		return // it has failed meanwhile, or was asked again
	}
	if q.kind == wire.KindWantLayer {
		l := layerOf(m.t, a.shape.Pieces())
		tree, err := b3tree.NewTree(a.shape, l.root, l.cvs)
		require.NoError(m.t, err)
		a.tree = tree
	} else if a.asked = nil; a.left == 0 {
		m.s.complete(a.id, fileActive)
	}
	m.plan()
}

// publish gives all complete files their names.
func (m *sim) publish() {
	for _, id := range m.s.whole {
		m.s.files[id] = filePlaced
		m.s.left--
	}
	m.s.whole = nil
}

// finish lets all suppliers send what they are asked for until nothing is missing.
func (m *sim) finish() {
	for range 100_000 {
		m.publish()
		if m.s.left == 0 {
			return
		}
		moved := false
		for _, p := range slices.Clone(m.peers) {
			switch {
			case len(p.asks) > 0:
				m.answer(p)
			case len(p.queue) > 0:
				m.send(p, 0, false)
			default:
				continue
			}
			moved = true
		}
		if !moved {
			break
		}
	}
	m.publish()
	require.Zero(m.t, m.s.left, "nothing is requested any more, and some is missing: %v", m.s.files)
}

// check holds the schedule to its invariants.
func (m *sim) check() {
	s := m.s
	wantedBy := make(map[key]int)
	for _, p := range m.peers {
		weights := int64(0)
		for k, weight := range p.wanted {
			weights += weight
			wantedBy[k]++
			require.Equal(m.t, s.weight(k), weight)
			require.Nil(m.t, p.lacks[k.file()], "it does not have file %d", k.file())
		}
		require.Equal(m.t, weights, p.inflight)
		require.GreaterOrEqual(m.t, p.due, int64(len(p.wanted)), "it may deliver what was requested")
		require.LessOrEqual(m.t, p.inflight, p.window+pieceSize+stealKeys*pieceSize)
		require.LessOrEqual(m.t, len(p.wanted), mostWanted+stealKeys)
		require.Contains(m.t, s.suppliers, &p.supplier)
	}
	require.Len(m.t, s.suppliers, len(m.peers))
	left := 0
	for id, state := range s.files {
		id := uint32(id)
		switch state {
		case fileNew, fileWanted, fileBusy, fileActive, fileWhole, fileUnsure:
			left++
		}
		require.Equal(m.t, state == fileActive, s.active[id] != nil, "file %d is %d", id, state)
		if state == fileWanted {
			require.NotZero(m.t, wantedBy[keyOf(id, 0)], "file %d is wanted of nobody", id)
		}
	}
	require.Equal(m.t, s.left, left)
	for id, a := range s.active {
		missing := 0
		for i, state := range a.state {
			if state != pieceHere {
				missing++
			}
			if state == pieceWanted {
				require.NotZero(m.t, wantedBy[keyOf(id, i)], "piece %d of %d is wanted of nobody", i, id)
			}
		}
		require.Equal(m.t, missing, a.left)
	}
}

// Whatever suppliers do, nothing is requested twice of one, what they do not deliver is missing again, the windows hold, and in the end all is
// there if one of them has it.
func TestAScheduleFetchesEverythingWhateverSuppliersDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hashed := rapid.Bool().Draw(t, "hashed")
		m := newSim(t, hashed, rapid.SliceOfN(rapid.SampledFrom([]int{-1, -1, -1, 0, 1, 2, 3, 40}), 1, 30).Draw(t, "files")...)
		m.s.suppliersLeft = 4
		for i := range m.s.entries {
			if m.s.entries[i].Kind == manifest.KindFile && rapid.IntRange(0, 9).Draw(t, "sparse") == 0 {
				m.s.entries[i].Flags |= manifest.FlagSparse
			}
		}
		for range rapid.IntRange(1, 120).Draw(t, "events") {
			m.event(t)
			m.check()
		}
		for len(m.peers) > 0 {
			m.leave(m.peers[0], false)
		}
		m.s.suppliersLeft = max(1, m.s.suppliersLeft)
		m.join(firstWindow)
		m.finish()
		m.check()
		require.Empty(t, m.s.active)
	})
}

// event is one thing that may happen.
func (m *sim) event(t *rapid.T) {
	var p *peer
	if len(m.peers) > 0 {
		p = rapid.SampledFrom(m.peers).Draw(t, "peer")
	}
	switch what := rapid.IntRange(0, 15).Draw(t, "event"); {
	case what == 0 && len(m.peers) < m.s.suppliersLeft:
		m.join(rapid.Int64Range(1, 4*pieceSize).Draw(t, "window"))
	case p == nil:
	case what == 1:
		isEnd := m.s.suppliersLeft > 1 && rapid.Bool().Draw(t, "for good")
		m.leave(p, isEnd)
	case what == 2: // of what was on the way some comes all the same
		p.queue = p.queue[:rapid.IntRange(0, len(p.queue)).Draw(t, "kept")]
		require.True(t, m.s.laneLost(&p.supplier))
		m.plan()
	case what == 3:
		id := uint32(rapid.IntRange(0, len(m.s.entries)-1).Draw(t, "file"))
		if m.s.entries[id].Kind != manifest.KindFile || m.s.suppliersLeft < 2 || m.isLastOne(p, id) {
			return
		}
		require.False(t, m.s.lack(&p.supplier, id, &Error{Code: CodeIO}))
		p.queue = slices.DeleteFunc(p.queue, func(k key) bool { return k.file() == id })
		m.plan()
	case what == 4:
		m.loseOne(t)
	case what == 5:
		m.publish()
	case what <= 8 && len(p.asks) > 0:
		m.answer(p)
	case len(p.queue) > 0:
		i := rapid.IntRange(0, len(p.queue)-1).Draw(t, "piece")
		m.send(p, i, what == 9 && m.s.suppliersLeft > 1)
	}
}

// isLastOne reports whether a file would have nobody left if p lacked it.
func (m *sim) isLastOne(p *peer, id uint32) bool {
	if len(m.peers) < m.s.suppliersLeft {
		return false
	}
	return !slices.ContainsFunc(m.peers, func(other *peer) bool { return other != p && other.lacks[id] == nil })
}

// loseOne loses a piece or a small file, as a failed sync does.
func (m *sim) loseOne(t *rapid.T) {
	for _, id := range slices.Sorted(maps.Keys(m.s.active)) {
		a := m.s.active[id]
		if i := slices.Index(a.state, pieceHere); i >= 0 {
			m.s.lose(a, i)
			m.plan()
			return
		}
	}
	for i, id := range m.s.whole {
		if m.s.shapeOf(id).Pieces() == 1 {
			m.s.whole = slices.Delete(m.s.whole, i, i+1)
			m.s.loseFile(id)
			m.plan()
			return
		}
	}
}
