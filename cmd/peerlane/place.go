package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unicode"

	"github.com/peerlane/peerlane/transfer"
)

// placer decides where get puts what a ticket brings.
type placer struct {
	get     *getCmd
	display *display
	asker   *asker        // nil: there is no terminal to ask on, or no need
	settled chan struct{} // closed once nothing will be asked any more
	once    sync.Once

	mu       sync.Mutex
	dir      string // where it goes
	made     string // the folder that was made for it, or ""
	complete bool   // what is there already must be all of it
}

// newPlacer returns a placer. If the folder, or one of those in it, has data of an earlier run, it goes on there, and nothing is asked.
func newPlacer(c *getCmd, d *display, std stdio, id string) *placer {
	p := &placer{get: c, display: d, settled: make(chan struct{}), dir: c.Dir}
	dir, found := c.stateDir(id)
	switch {
	case found:
		p.dir = dir
		p.settle()
	case !c.Yes && c.Ticket != "-" && isTerminal(std.in) && isTerminal(std.err):
		p.asker = newAsker(std.in, d)
	default:
		p.settle()
	}
	return p
}

// settle records that nothing will be asked any more.
func (p *placer) settle() { p.once.Do(func() { close(p.settled) }) }

// where returns where it goes, as far as that is known.
func (p *placer) where() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dir
}

// stateDir returns the folder that has data of an earlier run: the one that was named, or one of this user's folders in it.
func (c *getCmd) stateDir(id string) (dir string, found bool) {
	isState := func(dir string) bool {
		info, err := os.Lstat(filepath.Join(dir, transfer.StagingPrefix+id))
		return err == nil && info.IsDir()
	}
	if isState(c.Dir) {
		return c.Dir, true
	}
	if c.Flat {
		return "", false
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return "", false // making it, or writing there, fails too, and says more
	}
	for _, e := range entries {
		sub := filepath.Join(c.Dir, e.Name())
		if !e.IsDir() || !isState(sub) {
			continue
		}
		if info, err := e.Info(); err == nil && isOwn(info) {
			return sub, true
		}
	}
	return "", false
}

// errHidden refuses names such as .bashrc, which other programs obey.
var errHidden = errors.New("a name at the top that begins with a dot")

// place is for transfer.ReceiveOptions.Place.
func (p *placer) place(ctx context.Context, in transfer.Incoming) (*transfer.Place, error) {
	defer p.settle()
	tops := topsOf(in.Entries)
	for _, top := range tops {
		if !p.get.Hidden && isHidden(top.name) {
			return nil, &transfer.Error{Path: top.name, Code: transfer.CodePathUnsafe, Err: errHidden}
		}
	}
	dir, target := p.get.target(in, tops)
	exists, err := isThere(target)
	if err != nil {
		return nil, err
	}
	if exists && !p.get.Overwrite && (dir != target || !isEmpty(dir)) { // an earlier run may have ended before anything was in it
		p.mu.Lock()
		defer p.mu.Unlock()
		p.dir, p.complete = dir, true
		return &transfer.Place{Dir: dir, Complete: true}, nil
	}
	if len(tops) > 0 {
		p.display.printf("%s", offersText(tops))
	}
	if p.asker != nil {
		if err := p.ask(ctx, target); err != nil {
			return nil, err
		}
	}
	return p.make(dir)
}

// target returns the folder that the tree goes below, and what must not exist so that it is only its own: the only folder of the tree, the
// folder that is named after the tree, or "" if it may be merged.
func (c *getCmd) target(in transfer.Incoming, tops []top) (dir, target string) {
	switch {
	case c.Flat, len(tops) == 0, len(tops) == 1 && !tops[0].isDir:
		return c.Dir, ""
	case len(tops) == 1:
		return c.Dir, filepath.Join(c.Dir, tops[0].name)
	}
	target = filepath.Join(c.Dir, transfer.FolderName(in.Name))
	return target, target
}

// isThere reports whether there is a folder at path, or nothing. Anything else is an error.
func isThere(path string) (bool, error) {
	if path == "" {
		return false, nil
	}
	info, err := os.Lstat(path)
	failed := &transfer.Error{Op: "look", Path: filepath.Base(path), Area: transfer.AreaDestination, Code: transfer.CodeExists}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		failed.Code, failed.Err = transfer.CodeIO, err
	case info.IsDir():
		return true, nil
	case info.Mode()&fs.ModeSymlink != 0:
		failed.Code, failed.Text = transfer.CodePathUnsafe, "the destination has a symlink of that name: nothing is written through symlinks"
	default:
		failed.Text = "the destination has a file of that name"
	}
	return false, failed
}

// isEmpty reports whether a folder is. One that cannot be read is not.
func isEmpty(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // it was only read
	_, err = f.Readdirnames(1)
	return errors.Is(err, io.EOF)
}

// make makes the folder, unless it exists.
func (p *placer) make(dir string) (*transfer.Place, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dir = dir
	err := os.Mkdir(dir, 0o777)
	switch {
	case err == nil:
		p.made = dir
	case !errors.Is(err, fs.ErrExist):
		return nil, &transfer.Error{Op: "create", Area: transfer.AreaDestination, Code: transfer.CodeIO, Err: err}
	}
	return &transfer.Place{Dir: dir}, nil
}

// undo removes the folder that was made if nothing came to be in it, and says what helps against a folder that exists.
func (p *placer) undo(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made != "" {
		_ = os.Remove(p.made) // it fails if there is something in it
	}
	if p.complete && transfer.CodeOf(why) == transfer.CodeExists {
		p.display.printf("note     the folder exists, and some of this is not in it: --flat with the folder %s adds that, and replaces nothing",
			safe(p.dir))
	}
}

// ask asks whether to take what was shown.
func (p *placer) ask(ctx context.Context, target string) error {
	into := p.get.Dir
	if target != "" {
		into = target
	}
	yes, err := p.asker.ask(ctx, fmt.Sprintf("Put it into %s? [y/n]", safe(into)), nil)
	if err == nil && !yes {
		err = &transfer.Error{Code: transfer.CodeCanceled, Text: "declined by the user"}
	}
	return err
}

// top is an entry at the top of a tree, with all that is below it.
type top struct {
	name  string
	isDir bool
	files int
	bytes int64
}

// topsOf returns what a tree has at its top, in order.
func topsOf(entries []transfer.Entry) (tops []top) {
	for i := range entries {
		e := &entries[i]
		name, _, below := strings.Cut(e.Path, "/")
		if len(tops) == 0 || tops[len(tops)-1].name != name {
			tops = append(tops, top{name: name})
		}
		t := &tops[len(tops)-1]
		t.isDir = t.isDir || below || e.Kind == transfer.KindDir
		if e.Kind == transfer.KindFile {
			t.files++
			t.bytes += e.Size
		}
	}
	return tops
}

// isHidden reports whether a name begins with a dot. Characters that no system shows, and some ignore, do not count.
func isHidden(name string) bool {
	name = strings.TrimLeftFunc(name, func(r rune) bool { return unicode.Is(unicode.Cf, r) || unicode.IsSpace(r) })
	return strings.HasPrefix(name, ".")
}

// Bounds of a list of entries.
const (
	mostTops     = 20 // each on a line
	longestShown = 80 // characters of a name
)

// offersText lists what is about to come, in lines of which the last has no end.
func offersText(tops []top) string {
	var lines []string
	for i, t := range tops {
		if i == mostTops {
			var rest top
			for _, t := range tops[i:] {
				rest.files += t.files
				rest.bytes += t.bytes
			}
			lines = append(lines, fmt.Sprintf("offers   %d more: %s, %s", len(tops)-i, filesText(rest.files), bytesText(float64(rest.bytes))))
			break
		}
		lines = append(lines, "offers   "+t.String())
	}
	return strings.Join(lines, "\n")
}

// String returns a line about the entry.
func (t top) String() string {
	name := short(safe(t.name), longestShown)
	if t.isDir {
		return fmt.Sprintf("%q: %s, %s", name+"/", filesText(t.files), bytesText(float64(t.bytes)))
	}
	return fmt.Sprintf("%q: %s", name, bytesText(float64(t.bytes)))
}
