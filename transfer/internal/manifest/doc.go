// Package manifest says what a transfer of files consists of: the entries, their bytes on the wire, and which paths a receiver takes.
// It is pure: no I/O, no goroutine. Package transfer stands on it, and on packages source and staging.
//
//	c, err := manifest.NewChecker(manifest.LocalRules())
//	for batch := range batches {                             // as they come from the peer
//		entries, err := manifest.ConsumeBatch(nil, batch)    // *Error: CodeProtocol
//		for _, e := range entries {
//			err := c.Add(e)                                  // *Error: CodePathUnsafe, CodeExists, CodeTooLarge, CodeProtocol
//		}
//	}
//
// # Order
//
// Entries come in the order of Compare: by path, a folder directly before all that is in it. So duplicates and files that are also
// folders are found with no more memory than the folders from the root to the last entry take, and each entry costs the same.
//
// # Root
//
// Root, and a Hasher entry by entry, give a manifest its name: one hash over all of it, and over the contents of the files when each
// entry has that of its own.
//
// # Paths
//
// A path that CheckPath takes names something below the destination on any system, by its text alone. What is on the disk already,
// as a symlink that a path runs through, is package staging's to refuse. Portable rules also refuse what Windows and macOS cannot
// keep apart; they are for a destination there, and for a sender who wants to know.
//
// # Limits
//
// Rules caps entries, bytes of files and bytes of the manifest, with finite defaults. A folder that no entry names, and that is only
// implied by the path of another, counts as an entry. A Checker keeps at most the names in the folders that are open, and with
// portable rules only.
//
// # Stability
//
// The bytes are those of SPEC.md, version 1. The API may change until the transfer protocol is released.
package manifest
