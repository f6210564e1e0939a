package source

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// top is one of the paths given to Walk.
type top struct {
	given string
	name  string   // its entry's path
	root  *os.Root // of the folder itself, or of the file's folder
	file  string   // the file's name in root; "" for a folder
	first uint32   // the id of its entry
}

// openTops opens the paths to walk, in the order of the manifest. It records paths that cannot be sent as missed.
func (w *walker) openTops(paths []string) (tops []top, err error) {
	if len(paths) == 0 {
		return nil, errorf("walk", "", fault.CodeIO, "there is nothing to send: name a file or a folder")
	}
	defer func() {
		if err != nil {
			closeTops(tops)
		}
	}()
	for _, path := range paths {
		t, err := openTop(path)
		if err == nil {
			tops = append(tops, t)
		} else if err = w.missTop(err); err != nil {
			return tops, err
		}
	}
	slices.SortStableFunc(tops, func(a, b top) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(tops); i++ {
		if a, b := &tops[i-1], &tops[i]; a.name == b.name {
			return tops, errorf("walk", b.given, fault.CodeExists, "%q has the same name: send the folders they are in, or one after the other", a.given)
		}
	}
	return tops, nil
}

func closeTops(tops []top) {
	for _, t := range tops {
		_ = t.root.Close() // nothing was written to it
	}
}

// openTop opens one path. It follows a symlink at the path's end, because the caller means its target.
func openTop(path string) (top, error) {
	if path == "" {
		return top{}, errorf("walk", "", fault.CodeIO, "a path is empty: name a file or a folder")
	}
	fi, err := os.Stat(path)
	if err != nil && leadsNowhere(path, err) {
		return top{}, &leftError{errorf("walk", path, fault.CodePathUnsafe, "it is a symlink that leads to nothing"), notFollowed}
	}
	if err != nil {
		return top{}, wrap("walk", path, err)
	}
	t := top{given: path}
	if t.name, err = nameOf(path); err != nil {
		return top{}, wrap("walk", path, err)
	}
	dir := path
	switch {
	case fi.Mode().IsRegular():
		if dir, t.file, err = split(path); err != nil {
			return top{}, wrap("walk", path, err)
		}
	case !fi.IsDir():
		return top{}, &leftError{errorf("walk", path, fault.CodePathUnsafe, "it is %s: only files and folders are sent", what(fi.Mode())), notSent}
	}
	if t.root, err = os.OpenRoot(dir); err != nil {
		return top{}, wrap("walk", path, err)
	}
	return t, nil
}

// leadsNowhere reports whether a path that os.Stat fails on is a symlink without a target.
func leadsNowhere(path string, err error) bool {
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ELOOP) && !errors.Is(err, syscall.ENOTDIR) {
		return false
	}
	fi, err := os.Lstat(path)
	return err == nil && fi.Mode()&fs.ModeSymlink != 0
}

// split returns a file's folder, and its name there.
func split(path string) (dir, name string, err error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return "", "", err
	}
	if !fi.Mode().IsRegular() {
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return "", "", err
		}
	}
	return filepath.Dir(path), filepath.Base(path), nil
}

// nameOf returns the last name of a path, or the folder's name for ".", ".." and a root.
func nameOf(path string) (string, error) {
	name := filepath.Base(path)
	if name != "." && name != ".." && name != string(filepath.Separator) {
		return name, nil
	}
	abs, err := filepath.EvalSymlinks(path) // before Abs, which takes ".." from the text
	if err == nil {
		abs, err = filepath.Abs(abs)
	}
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return "", err
	}
	if name = filepath.Base(abs); name != string(filepath.Separator) {
		return name, nil
	}
	if volume := strings.Trim(filepath.VolumeName(abs), `:\/?.`); volume != "" && !strings.ContainsAny(volume, `:\/`) {
		return volume, nil
	}
	return "root", nil
}
