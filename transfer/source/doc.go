// Package source finds the files that are sent, and reads them: the sending side's disk, as package staging is the receiving side's.
// Package transfer stands on it, and on package manifest.
//
//	tree, err := source.Walk(ctx, []string{"docs", "photo.jpg"}, nil) // *Error
//	defer tree.Close()
//	for _, e := range tree.Entries() {                 // the manifest, ids 0, 1, 2 and on
//		data, err := tree.ReadFile(e.ID, buf[:0])  // a small file, at once
//		f, err := tree.Open(e.ID)                  // a large one: ReadAt, Hole, Close
//		err = f.Check()                            // CodeSourceChanged: what has been read is of two versions
//	}
//	err = tree.Hash(ctx, 0, nil)                       // for who names the transfer before it is sent
//
// # What is sent
//
// Files, folders and, by Rules, symlinks that stay inside the transfer: no devices, FIFOs and sockets, which Options.Skip is told of. A
// path that Walk is given may be a symlink; below it none is followed. Each folder is opened by its name in the one that it is in, and
// compared with what was looked at: nobody who writes there leads the sender out of it.
//
// # Changes
//
// A file is compared with its entry when it is opened, and again by File.Check, which who reads calls at the end: size, time, and that
// its name leads to it. A write within one tick of the file system's clock after Walk, or one that sets the time back, is not seen so.
//
// # Hashes
//
// Hash and Layer read what the Cache does not have. The Cache believes device, inode, size, time and time of change, the last of
// which nobody sets at will; what was changed less than two seconds before it is read is not kept. On Windows nothing is.
//
// # Limits
//
// The Rules' for a transfer, b3tree.MaxSize for a file. A Tree of n entries has about 90 bytes for each, and its path. At most 64
// folders are kept open for the files in them, beside those of open files; Walk opens as many as are in each other.
//
// # Stability
//
// The API may change until the transfer protocol is released. The files of the Cache have a version, and are made again.
package source
