// Package staging is the receiving side's files of a transfer: what has come is kept beside its destination until it is whole, and
// survives the end of the process and of the machine. Package transfer stands on it.
//
//	fs, err := staging.OpenRoot("/home/me/Downloads")
//	s, err := staging.Create(fs, "0123456789abcdef", entries, nil)  // or Open, after a crash
//	same, err := s.Existing(7)                                // there already: Adopt
//	err = s.WriteAt(7, piece, off)                            // pieces that are known to be right, in any order, from any goroutine
//	err = s.WriteFile(8, data)                                // or a small file, whole
//	err = s.Sync()                                            // from one, when Dirty is 64 MiB, or after 2 s
//	have := s.Have(7)                                         // what no power cut takes away: tell the sender
//	failures := s.Publish([]uint32{7, 8})                     // files that are whole, under their own names
//	err = s.Finish()                                          // symlinks, modes of folders; the staging directory goes
//
// # What holds always
//
// Have never says more than the disk has: a part and its layer are synced before the journal says so, and the journal before Have does.
// A file appears under its name whole, or not at all, and nothing is replaced unless Options.Overwrite. SyncNone gives up the first
// for a power cut, and for it alone.
//
// Nothing outside of the destination is touched: all is made new under a private name, and is moved into place; a folder that is a
// symlink is refused. On Unix folders are held open, each opened from the one above and none through a symlink; Publish looks once per
// call whether they are still those of their names, so who moves one away during a call gets the files where it went. Elsewhere all
// goes through one os.Root, which follows symlinks inside of the destination, and none that leads out.
//
// The journal is not believed about published files: Open looks whether each is still in its place, with its size and time, and Finish
// whether all are. Folders without u+rwx are opened up while that is needed, and have their modes again after Finish, Close and Abort.
//
// # Failures
//
// A full disk is CodeNoSpace: what Have says stays, and the same call may be repeated when there is room. A sync that has failed
// loses what was written since the last: Missing says what to write again. One sync of all that fails loses that of all files. After
// any other error on the disk the same holds, and Open after Close is the way to look at it with new eyes.
//
// # Lifetime
//
// All methods of a Staging may be called at once, Close, Abort and Finish too: they wait for the calls that run. Two writes of one
// range do not both go: the second is CodeProtocol. Sync, Publish, Reset and Finish take turns; writes go on meanwhile, and are the
// next one's. The directory belongs to one Staging: to others it is CodeBusy until Close or the end of the process, however that comes.
//
// It keeps Options.OpenParts files open, those that are not synced, and 64 folders, and has no goroutine. Close keeps the state for
// Open, Abort deletes it, Cleanup deletes what nobody has asked for.
//
// # Limits
//
// In memory are the entries, 64 bytes for each file, 60 more for one that SetRoot was given, and the layers of files that are not
// published. Room is for the caller to compare: Free and Needs. Contents are not hashed. Where a file system has no locks it is taken
// for one that is used alone. Where it has neither hard links nor a rename that replaces nothing, a file that another program makes at the
// moment of publishing is replaced. Where it has no hard links, files of WriteFile that a crash left in their places are not known for
// published: Existing tells.
package staging
