package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/peerlane/peerlane/transfer"
)

// sayLeftOut notes what the sender left out.
func (d *display) sayLeftOut(r transfer.Result) {
	if r.LeftOut > 0 {
		d.printf("note     the sender left out %s that it could not send: %s", itemsText(r.LeftOut), safe(r.LeftOutText))
	}
}

// receives records whether this process is receiving the transfer id.
func (d *display) receives(id string, is bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running[id] = is
}

// isNew reports whether the state id must be named: it is not being received and was not named before.
func (d *display) isNew(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.running[id] || d.named[id]
	if !d.running[id] {
		d.named[id] = true
	}
	return !was
}

// nameOthers names the states of unfinished transfers in a folder, each once, except those in but. Errors are ignored: the transfer itself
// did not fail.
func (d *display) nameOthers(dir string, but ...string) {
	unfinished, err := transfer.FindUnfinished(dir)
	if err != nil {
		return
	}
	for _, u := range unfinished {
		if !slices.Contains(but, u.ID) && d.isNew(u.ID) {
			d.printf("left     %s; to delete it: peerlane receive %s --discard", leftText(u), shellWord(dir))
		}
	}
}

// leftText describes the data of an unfinished transfer.
func leftText(u transfer.Unfinished) string {
	return fmt.Sprintf("%s: %s of %q from an unfinished transfer, last written %s",
		folderOf(u), bytesText(float64(u.Bytes)), safe(u.Name), u.Used.Format(time.DateTime))
}

func folderOf(u transfer.Unfinished) string { return transfer.StagingPrefix + u.ID }

// shellWord returns dir, or FOLDER if a shell needs quotes for it.
func shellWord(dir string) string {
	for _, r := range dir {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '/' && r != '.' && r != '_' && r != '-' {
			return "FOLDER"
		}
	}
	return dir
}

// errNoFolder: there is no folder to delete unfinished transfers from. It is not created.
var errNoFolder = errors.New("--discard: no such folder")

// hasFolder returns an error unless dir is a folder.
func hasFolder(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && !info.IsDir():
		return fmt.Errorf("%w: %s", errNoFolder, dir)
	}
	return err
}

// discardAll deletes the states of all transfers in a folder that no process is using.
func discardAll(std stdio, d *display, dir string) error {
	if err := hasFolder(dir); err != nil {
		return err
	}
	unfinished, err := transfer.FindUnfinished(dir)
	if err != nil {
		return err
	}
	deleted := 0
	for _, u := range unfinished {
		err := transfer.Discard(dir, u.ID)
		if transfer.CodeOf(err) == transfer.CodeBusy {
			d.printf("busy     %s: another process is using it", folderOf(u))
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "discard", Path: folderOf(u), Err: err}
		}
		deleted++
		fmt.Fprintf(std.out, "deleted  %s\n", leftText(u))
	}
	switch {
	case deleted == 0 && len(unfinished) == 0:
		fmt.Fprintf(std.out, "deleted  nothing: no unfinished transfer in %s\n", safe(dir))
	case deleted == 0:
		fmt.Fprintf(std.out, "deleted  nothing: what is in %s is being used\n", safe(dir))
	}
	return nil
}
