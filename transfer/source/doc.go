// Package source finds the files to send and gives them to package transfer.
//
//	tree, err := source.Walk(ctx, []string{"docs", "photo.jpg"}, nil) // *transfer.Error
//	defer tree.Close()
//	err = tree.Hash(ctx, nil)          // optional: the transfer's Root then covers the content of the files
//	for _, e := range tree.Entries() { // with the ids 0, 1, 2 and so on
//		fmt.Println(e.Kind, e.Path, e.Size)
//	}
//
// # What is sent
//
// Files, folders and, if Rules allow them, symlinks that stay inside the transfer. Devices, FIFOs and sockets are not sent: see
// Options.OnLeftOut. A path given to Walk may be a symlink; symlinks below it are not followed. Each folder is opened by its name in the
// folder above and compared with the item that was listed there, so that a program that writes there cannot lead the sender out of it.
//
// # Changes
//
// A file is compared with its entry when it is opened, and again after it was read: its size, its time, and that its name leads to it. A write
// within one tick of the file system's clock after Walk, or one that sets the time back, is not detected.
//
// # Hashes
//
// Hash reads the files that the Cache does not have. The Cache compares device, inode, size, modification time and change time. Programs
// cannot set the last of these. A file that was changed less than two seconds before it is read is not cached. On Windows nothing is.
//
// # Limits
//
// The Rules limit a transfer. A file has at most 4 TiB. A Tree needs about 90 bytes for each entry, and its path. At most 64 folders stay
// open for the files in them, in addition to those of open files; Walk opens as many as are nested.
//
// # Stability
//
// The API may change until the transfer protocol is released. The files of the Cache have a version, and are replaced by a newer one.
package source
