package b3tree

// Stream hashes bytes of which nobody knows yet how many there will be: a list, not a file, for it has no pieces. It is an [io.Writer]
// of writes of any length. The zero Stream is ready for use, by one goroutine at a time; it holds 18 KiB and no more.
type Stream struct{ branch branch }

// Write hashes p. It never fails.
func (s *Stream) Write(p []byte) (int, error) {
	s.branch.write(p)
	return len(p), nil
}

// Root returns [Sum] of all that has been written. It changes nothing: more may be written after it.
func (s *Stream) Root() Root { return rootOf(s.branch.node()) }

// Reset makes s one that nothing has been written to.
func (s *Stream) Reset() { s.branch.begin(0) }
