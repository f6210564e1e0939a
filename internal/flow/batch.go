package flow

// A Batch is a buffer for outbound bytes, with room in front for the header of a segment. A large batch is kept as it is, without a copy.
type Batch struct{ c *chunk }

// batchCopy is the largest batch that is copied nevertheless. A kept buffer holds its whole size, at most three times its
// contents.
const batchCopy = 48 << 10

// MaxBatch is the largest Batch, in bytes, that is not copied.
const MaxBatch = largeChunk - headerSize

// NewBatch returns an empty batch for WriteBatch. It is a small one while the flow's budget may have no room for a large one.
func (f *Flow) NewBatch() Batch {
	if b := f.cfg.Budget; b != nil && b.Scarce(largeChunk) {
		return Batch{newCounted(b, largeChunk, false)}
	}
	return Batch{newChunk(largeChunk, true)}
}

// Buffer returns an empty slice with the capacity that the batch has for bytes. Append the bytes to it.
func (b Batch) Buffer() []byte { return b.c.buf[headerSize:headerSize] }

// WriteBatch is Write for the bytes p that were appended to b.Buffer. It takes b even if it fails.
func (f *Flow) WriteBatch(b Batch, p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	large := len(p) > batchCopy && len(p) <= MaxBatch && len(b.c.buf) == largeChunk && f.cfg.Window >= 4*largeChunk
	if !large || !b.c.claim(f.cfg.Budget) {
		n, err := f.write(p, b.c)
		b.c.free(f.cfg.Budget)
		return n, err
	}
	var w ackWait
	defer w.end(f)
	for {
		if err := f.writeError(); err != nil {
			b.c.free(f.cfg.Budget)
			return 0, err
		}
		if f.out.room() >= len(p) && f.out.granted(len(p)) == len(p) {
			break
		}
		f.awaitRoom(&w)
	}
	f.out.adopt(b.c, len(p))
	f.send(f.out.end)
	return len(p), nil
}
