package node

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/internal/dialaddr"
)

// The format of an address file: this line, then one line for each address, the newest first: when it last worked, in seconds since 1970,
// and the address.
const addrFileHead = "peerlane addresses 1"

// Limits of an address file.
const (
	maxFilePeers = 256
	maxFileAddrs = 4 // per peer
	maxFileAge   = 90 * 24 * time.Hour
	maxAddrFile  = maxFilePeers * maxFileAddrs * 1024 // bytes to read
	addrFileWait = time.Second                        // from a change until the file is written
)

// An addrFile is a Discovery that returns the addresses at which peers have been reached before, also by earlier processes.
type addrFile struct {
	path string
	log  *slog.Logger

	dirty   chan struct{}
	quit    chan struct{} // closed by Close
	running sync.WaitGroup

	mu    sync.Mutex
	peers map[peer.ID][]workedAddr // the newest address first
}

// workedAddr is an address and the time of its last use.
type workedAddr struct {
	addr ma.Multiaddr
	at   time.Time
}

// validateAddrFile returns an error if no file can be at the path. The file itself need not exist. An empty path is none.
func validateAddrFile(path string) error {
	if path == "" {
		return nil
	}
	folder := filepath.Dir(path)
	if in, err := os.Stat(folder); err != nil {
		return invalidf("Options.AddrFile: the folder of %q cannot be used: %w", path, err)
	} else if !in.IsDir() {
		return invalidf("Options.AddrFile: %q is not a folder", folder)
	}
	if at, err := os.Stat(path); err == nil && !at.Mode().IsRegular() {
		return invalidf("Options.AddrFile: %q is not a regular file", path)
	}
	return nil
}

func newAddrFile(path string, log *slog.Logger) *addrFile {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &addrFile{path: path, log: log, dirty: make(chan struct{}, 1), quit: make(chan struct{}), peers: make(map[peer.ID][]workedAddr)}
}

// Start reads the file. Unreadable lines are logged and skipped: those peers must be found in another way.
func (f *addrFile) Start(host.Host) error {
	err := f.read()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.log.Warn("address file: ignoring the parts that cannot be read", slog.String("file", f.path), slog.Any("error", err))
	}
	f.running.Go(f.write)
	return nil
}

// Close writes the pending changes.
func (f *addrFile) Close() error {
	select {
	case <-f.quit:
	default:
		close(f.quit)
	}
	f.running.Wait()
	return nil
}

// FindPeer returns the addresses at which a peer has been reached before.
func (f *addrFile) FindPeer(_ context.Context, id peer.ID) (peer.AddrInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info := peer.AddrInfo{ID: id}
	for _, w := range f.peers[id] {
		info.Addrs = append(info.Addrs, w.addr)
	}
	if len(info.Addrs) == 0 {
		return info, errNeverReached
	}
	return info, nil
}

// LocalOnly returns true: the file has no newer addresses. See Discovery.
func (f *addrFile) LocalOnly() bool { return true }

// errNeverReached matches routing.ErrNotFound.
var errNeverReached = fmt.Errorf("address file: the peer has not been reached before: %w", routing.ErrNotFound)

// remember records the addresses of connections that this host has opened.
func (f *addrFile) remember(conns []network.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := false
	for _, c := range conns {
		if at := c.RemoteMultiaddr(); c.Stat().Direction == network.DirOutbound && dialaddr.IsWhole(at) && len(at.Bytes()) <= maxAddrLen {
			changed = f.addLocked(c.RemotePeer(), workedAddr{at, time.Now()}) || changed
		}
	}
	if !changed {
		return
	}
	f.trimLocked()
	select {
	case f.dirty <- struct{}{}:
	default:
	}
}

// addLocked adds an address, and reports whether the file should be written again. f.mu is held.
func (f *addrFile) addLocked(id peer.ID, w workedAddr) bool {
	all := f.peers[id]
	known := slices.IndexFunc(all, func(o workedAddr) bool { return o.addr.Equal(w.addr) })
	if known == 0 && w.at.Sub(all[0].at) < time.Hour {
		return false
	}
	if known >= 0 {
		all = slices.Delete(all, known, known+1)
	}
	all = append(all, w)
	slices.SortStableFunc(all, func(a, b workedAddr) int { return cmp.Compare(b.at.Unix(), a.at.Unix()) })
	f.peers[id] = all[:min(len(all), maxFileAddrs)]
	return true
}

// trimLocked drops the least recently reached peers. f.mu is held.
func (f *addrFile) trimLocked() {
	for len(f.peers) > maxFilePeers {
		var oldest peer.ID
		for id, all := range f.peers {
			if oldest == "" || all[0].at.Before(f.peers[oldest][0].at) {
				oldest = id
			}
		}
		delete(f.peers, oldest)
	}
}

// read reads the file. It returns an error for the first malformed line, and uses the other lines.
func (f *addrFile) read() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() { // to open a named pipe would take until somebody writes to it
		return errors.New("it is not a regular file")
	}
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // opened for reading
	lines := bufio.NewScanner(io.LimitReader(file, maxAddrFile))
	if !lines.Scan() || lines.Text() != addrFileHead {
		return errors.Join(fmt.Errorf("the first line is not %q", addrFileHead), lines.Err())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var first error
	now := time.Now()
	for n := 2; lines.Scan(); n++ {
		id, w, err := parseWorked(lines.Text())
		if w.at.After(now) { // a clock was wrong: otherwise nothing would be newer, nor the address ever be forgotten
			w.at = now
		}
		switch {
		case err != nil && first == nil:
			first = fmt.Errorf("line %d: %w", n, err)
		case err == nil && now.Sub(w.at) < maxFileAge:
			f.addLocked(id, w)
		}
	}
	f.trimLocked()
	return errors.Join(first, lines.Err())
}

// parseWorked parses a line of the file.
func parseWorked(line string) (peer.ID, workedAddr, error) {
	seconds, text, _ := strings.Cut(line, " ")
	at, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return "", workedAddr{}, fmt.Errorf("%q is not a time", seconds)
	}
	info, err := ParsePeer(text)
	if err != nil {
		return "", workedAddr{}, err
	}
	if len(info.Addrs) != 1 || len(text) > maxAddrLen {
		return "", workedAddr{}, fmt.Errorf("%q is not one address", text)
	}
	return info.ID, workedAddr{info.Addrs[0], time.Unix(at, 0)}, nil
}

// write writes the file when addresses have changed. It ends once f is closed and all changes are written.
func (f *addrFile) write() {
	for open := true; open; {
		select {
		case <-f.dirty:
			timer := time.NewTimer(addrFileWait)
			select {
			case <-timer.C:
			case <-f.quit:
				timer.Stop()
			}
		case <-f.quit:
			open = false
			if len(f.dirty) == 0 {
				return
			}
			<-f.dirty
		}
		if err := f.save(); err != nil {
			f.log.Warn("address file: cannot be written", slog.String("file", f.path), slog.Any("error", err))
		}
	}
}

// save writes a temporary file and renames it, so that the file is always complete.
func (f *addrFile) save() error {
	tmp, err := os.CreateTemp(filepath.Dir(f.path), ".peerlane-addrs-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // still present after an error only
	if err := writeAndClose(tmp, f.format()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), f.path)
}

// format returns the content of the file.
func (f *addrFile) format() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	type line struct {
		workedAddr

		id peer.ID
	}
	var all []line
	for id, addrs := range f.peers {
		for _, w := range addrs {
			all = append(all, line{w, id})
		}
	}
	slices.SortFunc(all, func(a, b line) int {
		return cmp.Or(b.at.Compare(a.at), cmp.Compare(a.id, b.id), a.addr.Compare(b.addr))
	})
	var b bytes.Buffer
	fmt.Fprintln(&b, addrFileHead)
	for _, l := range all {
		fmt.Fprintf(&b, "%d %s/p2p/%s\n", l.at.Unix(), l.addr, l.id)
	}
	return b.Bytes()
}
