package manifest

import "github.com/peerlane/peerlane/internal/b3tree"

// Root returns the root of the manifest that the entries are (spec 3.2), which names the transfer. It is an *Error, with CodeProtocol,
// when AppendEntry would not take one of them.
func Root(entries []Entry) ([32]byte, error) {
	var h Hasher
	for i := range entries {
		if err := h.Add(&entries[i]); err != nil {
			return [32]byte{}, err
		}
	}
	return h.Sum(), nil
}

// A Hasher makes the root of a manifest of entries as they come. The zero Hasher is ready for use, by one goroutine at a time.
type Hasher struct {
	stream b3tree.Stream
	buf    []byte
}

// Add takes the next entry. It is an *Error, with CodeProtocol, and the entry is not in the root, when AppendEntry would not take it.
func (h *Hasher) Add(e *Entry) error {
	b, err := AppendEntry(h.buf[:0], e)
	if err != nil {
		return err
	}
	h.buf = b
	_, err = h.stream.Write(b)
	return err
}

// Sum returns the root of the manifest of what has been added. More may be added after it.
func (h *Hasher) Sum() [32]byte { return h.stream.Root() }
