package resume

// A Batch is a buffer for what is to be written, with room in front for the header of a segment: a large one is kept as it
// is, and not copied.
type Batch struct{ c *chunk }

// batchCopy is up to how many bytes a batch is copied all the same: a kept buffer holds its whole size, which so is at most
// three times what is in it.
const batchCopy = 48 << 10

// MaxBatch is how many bytes a Batch takes without being copied.
const MaxBatch = largeChunk - headerSize

// NewBatch returns an empty batch, which WriteBatch takes.
func NewBatch() Batch {
	c := largeChunks.Get().(*chunk)
	*c = chunk{buf: c.buf}
	return Batch{c}
}

// Buffer returns an empty slice with the capacity MaxBatch, to which the bytes are to be appended.
func (b Batch) Buffer() []byte { return b.c.buf[headerSize:headerSize] }

// WriteBatch is Write for the bytes p that were appended to b.Buffer. It takes b, also when it fails.
func (f *Flow) WriteBatch(b Batch, p []byte) (int, error) {
	if len(p) <= batchCopy || len(p) > MaxBatch || f.cfg.Window < 4*largeChunk {
		n, err := f.Write(p)
		b.c.free()
		return n, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var w ackWait
	defer w.end(f)
	for {
		if err := f.writeError(); err != nil {
			b.c.free()
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
