package flow

// A Budget bounds the memory of several flows. A flow asks it for each buffer of kept or received bytes beyond a first small one in each
// direction. Its methods are safe for concurrent use. They may be called with the flow's lock held, and do not block.
type Budget interface {
	// Take reserves n more bytes, or returns false.
	Take(n int) bool
	// Give gives back n reserved bytes.
	Give(n int)
	// Scarce reports whether Take(n) may return false. It is cheap.
	Scarce(n int) bool
}

// claim counts c in the budget, and reports false if there is no room for it. Small chunks are not counted, because a flow holds few of them:
// the first that it keeps, a batch, and the part of a segment that is being sent.
func (c *chunk) claim(b Budget) bool {
	switch {
	case b == nil || c.counted || len(c.buf) == smallChunk:
		return true
	case !b.Take(len(c.buf)):
		return false
	}
	c.counted = true
	return true
}

// release ends a claim.
func (c *chunk) release(b Budget) {
	if c.counted {
		c.counted = false
		b.Give(len(c.buf))
	}
}

// newCounted returns a chunk for n bytes that is counted in the budget b. When that has no room, it returns a small chunk, which is not
// counted, or nil if others are already in use, as more says.
func newCounted(b Budget, n int, more bool) *chunk {
	c := newChunk(n, more)
	if c.claim(b) {
		return c
	}
	c.free(nil)
	if more {
		return nil
	}
	return newChunk(0, false)
}
