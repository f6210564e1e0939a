// Package admin lets a user's command query the user's other processes, over HTTP on a unix socket in a folder that nobody else can enter.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Process is one that listens.
type Process struct {
	Name   string // of the command, as in "serve"
	PID    int
	Socket string // the path of its socket
}

// Folder returns the folder of this user's sockets, which need not exist: peerlane in $XDG_RUNTIME_DIR, or peerlane-UID in the folder for
// temporary files.
func Folder() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "peerlane")
	}
	return filepath.Join(os.TempDir(), "peerlane-"+strconv.Itoa(os.Getuid()))
}

// maxPath is the longest path that a socket can have on every system.
const maxPath = 103

// Listen listens on a socket for this process in folder, which it makes if there is none. Closing the listener removes the socket. It fails
// if another user owns the folder or can enter it.
func Listen(folder, name string) (net.Listener, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Lstat(folder)
	if err != nil {
		return nil, err
	}
	if err := check(folder, info); err != nil {
		return nil, err
	}
	path := filepath.Join(folder, fmt.Sprintf("%s-%d.sock", name, os.Getpid()))
	if len(path) > maxPath {
		return nil, fmt.Errorf("%s: a socket's path can have %d bytes; set XDG_RUNTIME_DIR to a shorter one", path, maxPath)
	}
	if conn, err := net.DialTimeout("unix", path, answerTime); !isStale(err) {
		if err == nil {
			_ = conn.Close()
		}
		return nil, fmt.Errorf("%s is in use by a process of the same number, as in another container; set XDG_RUNTIME_DIR to another folder", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an earlier process of this number
		return nil, err
	}
	return net.Listen("unix", path)
}

// errForeign: others could put a socket of theirs there, or use this user's.
var errForeign = errors.New("is no folder that only this user can enter: remove it, or set XDG_RUNTIME_DIR")

func check(folder string, info fs.FileInfo) error {
	if !info.IsDir() || !isPrivate(info) {
		return fmt.Errorf("%s %w", folder, errForeign)
	}
	return nil
}

// answerTime bounds how long a process may take to accept a connection.
const answerTime = 2 * time.Second

// List returns the processes that listen in folder, by name and number. It removes the sockets of those that have ended without a chance to,
// and only these: a process that is too busy to accept a connection, or is stopped, is listed.
func List(folder string) ([]Process, error) {
	info, err := os.Lstat(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = check(folder, info)
	}
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var all []Process
	for _, e := range entries {
		p, ok := parse(folder, e.Name())
		if !ok {
			continue
		}
		conn, err := net.DialTimeout("unix", p.Socket, answerTime)
		if !isStale(err) {
			if err == nil {
				_ = conn.Close()
			}
			all = append(all, p)
			continue
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > answerTime { // otherwise it may be about to listen
			_ = os.Remove(p.Socket) // another one may do so too
		}
	}
	return all, nil
}

// isStale reports whether err of a dial says that no process listens at a socket, or that there is none.
func isStale(err error) bool { return isRefused(err) || errors.Is(err, fs.ErrNotExist) }

// parse returns the process of a socket, if its name is that of a command and a number: other names could hold control characters.
func parse(folder, file string) (Process, bool) {
	base, isSocket := strings.CutSuffix(file, ".sock")
	name, number, found := strings.Cut(base, "-")
	pid, err := strconv.Atoi(number)
	isCommand := name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz") == ""
	return Process{name, pid, filepath.Join(folder, file)}, isSocket && found && isCommand && err == nil && pid > 0
}

// Client returns what sends requests to p, whatever host they name.
func (p Process) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", p.Socket)
	}}}
}

// String returns "name number", as in "serve 1234".
func (p Process) String() string { return p.Name + " " + strconv.Itoa(p.PID) }
