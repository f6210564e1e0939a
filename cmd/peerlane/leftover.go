package main

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/manifest"
	"github.com/peerlane/peerlane/transfer/staging"
)

// sayLeftOut says what the sender has left out of what has come.
func (d *display) sayLeftOut(r transfer.Result) {
	if r.LeftOut > 0 {
		d.printf("note     the sender has left out %d of what it was to send: %s", r.LeftOut, safe(r.LeftOutText))
	}
}

// receives notes whether the state of that id is of a transfer that runs.
func (d *display) receives(id string, is bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running[id] = is
}

// isNew reports whether a state is to be named: none that is running, nor was named.
func (d *display) isNew(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.running[id] || d.named[id]
	if !d.running[id] {
		d.named[id] = true
	}
	return !was
}

// nameOthers names what transfers have left in a folder that did not end, but for those ids: each once. A failure to look is none of the
// transfer.
func (d *display) nameOthers(dir string, but ...string) {
	disk, err := staging.OpenRoot(dir)
	if err != nil {
		return
	}
	defer func() { _ = disk.Close() }() // it was only read
	states, err := staging.States(disk)
	if err != nil {
		return
	}
	for _, s := range states {
		if !slices.Contains(but, s.ID) && d.isNew(s.ID) {
			d.printf("left     %s in %s; if no process is receiving it: peerlane receive %s --discard", stateOf(s), stateDir(s), shellWord(dir))
		}
	}
}

// stateOf says what a state is of.
func stateOf(s staging.State) string {
	return fmt.Sprintf("%s of %q, of an earlier run (%s)", bytesText(float64(s.Bytes)), safe(s.Name), s.Used.Format(time.DateTime))
}

func stateDir(s staging.State) string { return manifest.StagingPrefix + s.ID }

// shellWord returns a folder's name as a person can type it.
func shellWord(dir string) string {
	for _, r := range dir {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '/' && r != '.' && r != '_' && r != '-' {
			return "FOLDER"
		}
	}
	return dir
}

// discardAll deletes the states of all transfers in a folder that do not run.
func discardAll(std stdio, d *display, dir string) error {
	if _, err := os.Stat(dir); err != nil { // what is not there is not made for that
		return err
	}
	disk, err := staging.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = disk.Close() }() // a failure is Discard's
	states, err := staging.States(disk)
	if err != nil {
		return err
	}
	deleted := 0
	for _, s := range states {
		err := staging.Discard(disk, s.ID)
		if transfer.CodeOf(err) == transfer.CodeBusy {
			d.printf("busy     %s: another process is receiving it, or sees to it", stateDir(s))
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "discard", Path: stateDir(s), Err: err}
		}
		deleted++
		fmt.Fprintf(std.out, "deleted  %s in %s\n", stateOf(s), stateDir(s))
	}
	if deleted == 0 {
		fmt.Fprintf(std.out, "nothing  no transfer has left anything in %s\n", safe(dir))
	}
	return nil
}
