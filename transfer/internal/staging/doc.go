// Package staging stores a partially received tree beside its destination and publishes it once it is complete. The data survives the end
// of the process and of the machine. Package transfer builds on it.
//
//	fs, err := staging.OpenRoot("/home/me/Downloads")
//	s, err := staging.Create(fs, "0123456789abcdef", entries, nil)  // or Open, after a crash
//	same, err := s.Existing(7)                                // there already: Adopt
//	err = s.WriteAt(7, piece, off)                            // pieces that are known to be right, in any order, from any goroutine
//	err = s.WriteFile(8, data)                                // or a small file, whole
//	err = s.Sync()                                            // from one, when Dirty is 64 MiB, or after 2 s
//	have := s.Have(7)                                         // durable ranges: report them to the sender
//	failures := s.Publish([]uint32{7, 8})                     // files that are whole, under their own names
//	err = s.Finish()                                          // symlinks, modes of folders; the staging directory goes
//
// # Invariants
//
// Have never reports more than is on the disk: a part and its layer are synced before the journal lists them, and the journal is synced
// before Have reports them. A file appears under its name complete or not at all, and nothing is replaced without Options.Overwrite.
// SyncNone gives up the first property, for a power cut only.
//
// Nothing outside the destination is touched. Everything is created under a private name and moved into place; a folder that is a symlink
// is refused. On Unix, folders are held open, each opened from the one above and none through a symlink. Publish checks once per call that
// they still have their names, so if a folder is moved away during a call, the files go with it. On other systems everything goes through
// one os.Root, which follows symlinks inside the destination and none that leads out.
//
// A staging directory that another user owns or may write to is CodePathUnsafe, except on a file system without owners. The file that gets a
// name is the one that was written: on Linux the open file of a part of pieces is linked, and otherwise the inode is compared afterwards.
// Modes are cut by the umask of the process that publishes.
//
// The journal is not trusted about published files: Open checks that each is still in its place, with its size and time, and Finish checks
// them all. Folders without u+rwx are opened up while needed, and have their modes again after Finish, Close and Abort.
//
// # Failures
//
// A full disk is CodeNoSpace: the ranges of Have stay, and the same call may be repeated once there is room. A failed sync loses the data
// written since the last one: Missing says what to write again. A failed sync of the whole disk loses that data of all files. The same
// applies after any other disk error; then Close and Open read the disk afresh.
//
// # Lifetime
//
// All methods of a Staging may be called concurrently, including Close, Abort and Finish, which wait for running calls. Of two writes to
// one range, the second is CodeProtocol. Sync, Publish, Reset and Finish take turns. Writes continue meanwhile, and belong to the next one.
// The directory belongs to one Staging: for others it is CodeBusy until Close or the end of the process, however it ends.
//
// A Staging keeps Options.OpenParts unsynced files and 64 folders open, and has no goroutine. Close keeps the state for Open, Abort deletes
// it, Cleanup deletes abandoned states.
//
// # Limits
//
// In memory are the entries, 64 bytes for each file, 60 more for each file that SetRoot was called for, and the layers of unpublished
// files. The caller must compare the available room: Free and Needs. Contents are not hashed. A file system without locks is assumed to
// have a single user. On a file system with neither hard links nor an exclusive rename, a file that another program creates at the moment
// of publishing is replaced. Without hard links, files of WriteFile that a crash left in their places are not known to be published:
// Existing finds them.
package staging
