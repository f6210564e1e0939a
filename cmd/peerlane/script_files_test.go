package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdAppears waits for a file. Who makes it is another process, so that there is nothing but to look again.
func cmdAppears(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: appears GLOB SIZE")
	}
	size, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(20 * time.Second); ; {
		found, err := filepath.Glob(ts.MkAbs(args[0]))
		ts.Check(err)
		for _, path := range found {
			if info, err := os.Stat(path); err == nil && info.Size() >= size {
				return
			}
		}
		select {
		case <-tick.C:
		case <-end:
			ts.Fatalf("%s does not come to be %s bytes long", args[0], args[1])
		}
	}
}

// cmdSame compares two folders.
func cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: same DIR DIR")
	}
	a, err := describe(ts.MkAbs(args[0]))
	ts.Check(err)
	b, err := describe(ts.MkAbs(args[1]))
	ts.Check(err)
	if a != b {
		ts.Fatalf("%s:\n%s%s:\n%s", args[0], a, args[1], b)
	}
}

// describe returns what is to be equal of a folder.
func describe(dir string) (text string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		text += fmt.Sprintf("%q %v", rel, info.Mode())
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %v %d %.20q", info.ModTime().UnixNano(), len(data), data)
		}
		text += "\n"
		return nil
	})
	return text, err
}
