package transfer

import (
	"context"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// A Place is where a fetched tree goes.
type Place struct {
	Dir string // must exist
	// Complete accepts the tree only if all of it is in Dir already, or if an earlier run has stored data of it there. Otherwise nothing
	// changes in Dir, and the error is CodeExists.
	Complete bool
}

// incoming describes a listed tree.
func incoming(peer string, l listing) Incoming {
	in := Incoming{Peer: peer, Name: nameOf(l.entries, l.name), ID: idOf(l.root), LeftOut: int(l.left.Count), Entries: l.entries}
	for i := range l.entries {
		if l.entries[i].Kind == manifest.KindFile {
			in.Files++
			in.Bytes += l.entries[i].Size
		}
	}
	return in
}

// nameOf returns the name of a tree at its receiver: that of its only entry at the top, or the sender's if there are several.
func nameOf(entries []manifest.Entry, said string) string {
	if len(entries) == 0 {
		return said
	}
	first, _, _ := strings.Cut(entries[0].Path, "/")
	last, _, _ := strings.Cut(entries[len(entries)-1].Path, "/") // they are in order
	if first == last {
		return first
	}
	return said
}

// mostFolderName is how many bytes FolderName returns at most.
const mostFolderName = 100

// FolderName returns a name for a folder that resembles a sender's name of a tree, and that every system can store: one component of at
// most 100 bytes, without control characters, not hidden, and no device. It is "received" if nothing of the name is left.
func FolderName(name string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case unicode.Is(unicode.Cf, r):
			return -1
		case r == utf8.RuneError, r != ' ' && !unicode.IsPrint(r), strings.ContainsRune(`/\:<>"|?*`, r):
			return '_'
		}
		return r
	}, name)
	for len(clean) > mostFolderName {
		_, n := utf8.DecodeLastRuneInString(clean)
		clean = clean[:len(clean)-n]
	}
	clean = strings.TrimRight(strings.TrimLeft(clean, ".-~ "), ". ")
	if strings.Trim(clean, "_") == "" {
		return "received"
	}
	if manifest.CheckPath(clean, Rules{Portable: true}) != nil { // a device of Windows, or its short name of a folder of states
		return "_" + clean
	}
	return clean
}

// place asks Options.Place where a listed tree goes, and opens the disk there. It reports whether the tree must be there already.
func (r *receiver) place(l listing) (complete bool, err error) {
	if r.o.Place == nil {
		return false, nil
	}
	place, err := r.o.place(r.ctx, incoming(r.t.other(), l))
	switch {
	case r.ctx.Err() != nil:
		return false, context.Cause(r.ctx)
	case err != nil && CodeOf(err) == "":
		return false, &Error{Code: CodeCanceled, Text: "it was not placed", Err: err}
	case err != nil:
		return false, err
	case place == nil:
		return false, invalidf("ReceiveOptions.Place returned nil without an error")
	}
	disk, err := openRoot(place.Dir)
	if err != nil {
		return false, err
	}
	_ = r.disk.Close() // nothing was written to it
	r.disk = disk
	return place.Complete, nil
}

// checkComplete returns a CodeExists error unless the tree is in its place already, files whose content is still to be compared included.
// Its folders then stay as they are.
func (r *receiver) checkComplete() error {
	path := ""
	if r.left > len(r.unsure) {
		for id := range r.entries {
			if s := r.files[id]; s != filePlaced && s != fileUnsure {
				path = r.entries[id].Path
				break
			}
		}
	} else {
		var err error
		if path, err = r.st.Lacks(); err != nil {
			return err
		}
		if path == "" {
			r.st.KeepFolders()
			return nil
		}
	}
	return &Error{
		Op: "look", Path: path, Area: AreaDestination, Code: CodeExists,
		Text: "it would be put into a folder that exists already",
	}
}
