package manifest

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// A Kind is the kind of an entry. There are no devices, FIFOs or sockets, and there will be none.
type Kind uint8

// The kinds (spec 2.2).
const (
	KindFile    Kind = 1
	KindDir     Kind = 2
	KindSymlink Kind = 3
)

// String returns "file", "dir", "symlink", or "kind N".
func (k Kind) String() string {
	switch k {
	case KindFile:
		return "file"
	case KindDir:
		return "dir"
	case KindSymlink:
		return "symlink"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Flags are further properties of an entry.
type Flags uint8

// The flags (spec 2.3).
const (
	FlagSparse Flags = 0x01 // the file has holes at its sender's
	FlagHashed Flags = 0x02 // Hash is known

	knownFlags = FlagSparse | FlagHashed
)

// An Entry is one file, directory or symlink of a transfer.
type Entry struct {
	ID      uint32 // names it in all that follows; those of a manifest rise
	Kind    Kind
	Flags   Flags  // of a file
	Perm    uint16 // 0o777 bits; of a symlink 0
	Size    int64  // of a file, in bytes
	ModTime int64  // ns since 1970
	Path    string // from the root of the transfer, with /
	Target  string // of a symlink

	Hash [32]byte // the BLAKE3 root of a file with FlagHashed; zero for others
}

// Limits of encoded values (spec 2.4, 3.1).
const (
	MaxPath       = 4096    // bytes of a path, and of a target
	MaxBatch      = 1000    // entries in a batch
	MaxBatchBytes = 1 << 16 // bytes of a batch

	entryHead = 28 // kind 1, flags 1, perm 2, id 4, size 8, mtime 8, path's length 2, target's length 2
	hashSize  = 32 // behind the target, with FlagHashed
	batchHead = 2  // count
)

// EncodedSize returns how many bytes AppendEntry appends.
func (e *Entry) EncodedSize() int {
	return entryHead + len(e.Path) + len(e.Target) + e.Flags.hashSize()
}

// hashSize returns how many bytes an entry with such flags has behind its target.
func (f Flags) hashSize() int {
	if f&FlagHashed != 0 {
		return hashSize
	}
	return 0
}

// AppendEntry appends the bytes of e (spec 2.1). It is an *Error, with CodeProtocol, when ConsumeEntry would not take them.
func AppendEntry(b []byte, e *Entry) ([]byte, error) {
	if err := e.check(); err != nil {
		return b, err
	}
	b = append(b, byte(e.Kind), byte(e.Flags))
	b = binary.BigEndian.AppendUint16(b, e.Perm)
	b = binary.BigEndian.AppendUint32(b, e.ID)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Size))
	b = binary.BigEndian.AppendUint64(b, uint64(e.ModTime))
	b = binary.BigEndian.AppendUint16(b, uint16(len(e.Path)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(e.Target)))
	b = append(b, e.Path...)
	b = append(b, e.Target...)
	return append(b, e.Hash[:e.Flags.hashSize()]...), nil
}

// ConsumeEntry takes the entry that b begins with, and returns how many bytes that were. It checks the shape and not the path: that is
// a Checker's.
func ConsumeEntry(b []byte) (Entry, int, error) {
	if len(b) < entryHead {
		return Entry{}, 0, errorf(fault.CodeProtocol, "", "an entry ends after %d bytes", len(b))
	}
	size := binary.BigEndian.Uint64(b[8:])
	path, target := int(binary.BigEndian.Uint16(b[24:])), int(binary.BigEndian.Uint16(b[26:]))
	hash := entryHead + path + target
	end := hash + Flags(b[1]).hashSize()
	switch {
	case path > MaxPath || target > MaxPath:
		return Entry{}, 0, errorf(fault.CodeProtocol, "", "a path of %d bytes, a target of %d, and at most %d", path, target, MaxPath)
	case size > math.MaxInt64:
		return Entry{}, 0, errorf(fault.CodeProtocol, "", "a file of %d bytes", size)
	case len(b) < end:
		return Entry{}, 0, errorf(fault.CodeProtocol, "", "an entry of %d bytes ends after %d", end, len(b))
	}
	e := Entry{
		Kind:    Kind(b[0]),
		Flags:   Flags(b[1]),
		Perm:    binary.BigEndian.Uint16(b[2:]),
		ID:      binary.BigEndian.Uint32(b[4:]),
		Size:    int64(size),
		ModTime: int64(binary.BigEndian.Uint64(b[16:])),
		Path:    string(b[entryHead : entryHead+path]),
		Target:  string(b[entryHead+path : hash]),
	}
	copy(e.Hash[:], b[hash:end])
	return e, end, e.check()
}

// check reports an entry that cannot be, whatever its path is (spec 2.5).
func (e *Entry) check() error {
	if e == nil {
		return errorf(fault.CodeProtocol, "", "the entry is nil")
	}
	bad := func(format string, args ...any) error { return errorf(fault.CodeProtocol, e.Path, format, args...) }
	switch {
	case e.Kind < KindFile || e.Kind > KindSymlink:
		return bad("%v is none that this version knows", e.Kind)
	case e.Flags&^knownFlags != 0 || e.Flags != 0 && e.Kind != KindFile:
		return bad("a %v with flags 0x%02x", e.Kind, uint8(e.Flags))
	case e.Flags&FlagHashed == 0 && e.Hash != [32]byte{}:
		return bad("a %v with a hash, and without its flag", e.Kind)
	case e.Perm&^0o777 != 0 || e.Perm != 0 && e.Kind == KindSymlink:
		return bad("a %v with mode 0o%o", e.Kind, e.Perm)
	case e.Size < 0 || e.Size != 0 && e.Kind != KindFile:
		return bad("a %v of %d bytes", e.Kind, e.Size)
	case e.Path == "" || len(e.Path) > MaxPath:
		return bad("a path of %d bytes", len(e.Path))
	case (e.Target != "") != (e.Kind == KindSymlink) || len(e.Target) > MaxPath:
		return bad("a %v with a target of %d bytes", e.Kind, len(e.Target))
	}
	return nil
}

// AppendBatch appends a batch of as many of the first entries as one takes (spec 3.1), and returns how many those are. Only no
// entries make none.
func AppendBatch(b []byte, entries []Entry) ([]byte, int, error) {
	start := len(b)
	if len(entries) == 0 {
		return b, 0, nil
	}
	b = append(b, 0, 0)
	n := 0
	for n < min(len(entries), MaxBatch) && len(b)-start+entries[n].EncodedSize() <= MaxBatchBytes {
		var err error
		if b, err = AppendEntry(b, &entries[n]); err != nil {
			return b[:start], 0, err
		}
		n++
	}
	if n == 0 { // larger than any right one
		return b[:start], 0, entries[0].check()
	}
	binary.BigEndian.PutUint16(b[start:], uint16(n))
	return b, n, nil
}

// ConsumeBatch appends the entries of the batch that b is, all of it.
func ConsumeBatch(dst []Entry, b []byte) ([]Entry, error) {
	if len(b) < batchHead || len(b) > MaxBatchBytes {
		return dst, errorf(fault.CodeProtocol, "", "a batch of %d bytes, want %d to %d", len(b), batchHead, MaxBatchBytes)
	}
	count := int(binary.BigEndian.Uint16(b))
	if count == 0 || count > MaxBatch || count*entryHead > len(b) {
		return dst, errorf(fault.CodeProtocol, "", "a batch of %d entries in %d bytes", count, len(b))
	}
	b = b[batchHead:]
	start := len(dst)
	for range count {
		e, n, err := ConsumeEntry(b)
		if err != nil {
			return dst[:start], err
		}
		dst, b = append(dst, e), b[n:]
	}
	if len(b) > 0 {
		return dst[:start], errorf(fault.CodeProtocol, "", "a batch with %d bytes behind its entries", len(b))
	}
	return dst, nil
}
