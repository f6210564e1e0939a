package flow

// A Batch is a buffer for outbound bytes, with room in front for the header of a segment. A large batch is kept as it is, without a copy.
type Batch struct{ c *chunk }

// batchCopy is the largest batch that is copied nevertheless. A kept buffer holds its whole size, at most three times its
// contents.
const batchCopy = 48 << 10

// MaxBatch is the largest Batch, in bytes, that is not copied.
const MaxBatch = largeChunk - headerSize

// NewBatch returns an empty batch for WriteBatch.
func NewBatch() Batch {
	c := largeChunks.Get().(*chunk)
	*c = chunk{buf: c.buf}
	return Batch{c}
}

// Buffer returns an empty slice with the capacity MaxBatch. Append the bytes to it.
func (b Batch) Buffer() []byte { return b.c.buf[headerSize:headerSize] }

// WriteBatch is Write for the bytes p that were appended to b.Buffer. It takes b even if it fails.
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
