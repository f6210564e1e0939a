// Package staging is the receiving side's files of a transfer: what has come is kept beside its destination until it is whole, and
// survives the end of the process and of the machine. The transfer protocol comes on top of it; nothing uses it yet.
//
//	fs, err := staging.OpenRoot("/home/me/Downloads")
//	s, err := staging.Create(fs, "0123456789abcdef", entries, nil)  // or Open, after a crash
//	err = s.WriteAt(7, piece, off)                            // pieces that are known to be right, in any order
//	have := s.Have(7)                                         // what no power cut takes away: tell the sender
//	err = s.Publish(7)                                        // the file, when it is whole, under its own name
//	err = s.Finish()                                          // symlinks, modes of folders; the staging directory goes
//
// # What holds always
//
// Have never says more than the disk has: a part is synced before the journal says so, and the journal before Have does. A file
// appears under its name whole, or not at all, and nothing is replaced unless Options.Overwrite. Nothing outside of the destination
// is touched: all goes through one os.Root, is made new under a private name, and is moved into place; a folder that is a symlink is
// refused. Root follows symlinks inside of it, so who swaps a folder for one between the look and the move gets the file elsewhere
// in the destination, but not outside.
//
// # Failures
//
// A full disk is CodeNoSpace: what Have says stays, and the same call may be repeated when there is room. A sync that has failed
// loses what was written since the last: Missing says what to write again. After any other error on the disk the same holds, and
// Open after Close is the way to look at it with new eyes.
//
// # Lifetime
//
// A Staging belongs to one goroutine at a time, and its directory to one Staging. It keeps Options.OpenParts files open, and no
// goroutine: who has nothing to write for SyncEvery calls Sync. Close keeps the state for Open, Abort deletes it, Cleanup deletes
// what nobody has asked for.
//
// # Limits
//
// In memory are the entries and 200 bytes or so for each. The disk is not asked how much room there is. Contents are not hashed.
package staging
