package transfer

import "github.com/peerlane/peerlane/transfer/internal/manifest"

// Rules are the rules for the entries that a side sends or accepts.
//
//	Portable      bool  // refuses names that Windows or macOS cannot store, and two names that are one name there
//	Symlinks      bool  // allows symlinks: relative ones that lead to inside the transfer
//	Entries       int   // the most entries, with the folders that paths imply; if zero, 1,000,000
//	Bytes         int64 // the most bytes of all files; if zero, 2^50
//	ManifestBytes int64 // the most bytes of the encoded entries; if zero, 256 MiB
type Rules = manifest.Rules

// LocalRules returns the rules for a destination on this system: portable on Windows and macOS, and no symlinks.
func LocalRules() Rules { return manifest.LocalRules() }

// An Entry is one file, folder or symlink of a transfer.
//
//	ID      uint32   // its number, from 0
//	Kind    Kind
//	Flags   uint8    // for package transfer
//	Perm    uint16   // 0o777 bits; of a symlink 0
//	Size    int64    // of a file, in bytes
//	ModTime int64    // ns since 1970
//	Path    string   // from the root of the transfer, with /; untrusted at the receiver
//	Target  string   // of a symlink; untrusted at the receiver
//	Hash    [32]byte // the BLAKE3 root of a hashed file; otherwise zero
type Entry = manifest.Entry

// Kind is the kind of an Entry.
type Kind = manifest.Kind

// The kinds.
const (
	KindFile    = manifest.KindFile
	KindDir     = manifest.KindDir
	KindSymlink = manifest.KindSymlink
)
