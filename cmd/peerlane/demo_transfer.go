package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
	"github.com/peerlane/peerlane/transfer/ticket"
)

const (
	transferSize  = 16 << 20
	transferSmall = 100 // files, beside the large one
	transferKills = 2
	transferRate  = "16MB" // a second, so that there is time to kill
)

// killedAndResumed: peerlane get, in a process of its own, is killed twice while it fetches, and a third one fetches the rest.
func killedAndResumed(ctx context.Context, l *lab) (figure string, err error) {
	dir, err := os.MkdirTemp("", "peerlane-demo")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	from := filepath.Join(dir, "photos")
	if err := makePhotos(from); err != nil {
		return "", err
	}
	tree, err := source.Walk(ctx, []string{from}, nil)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	if err := tree.Hash(ctx, nil); err != nil {
		return "", err
	}
	f, err := newFetching(l, tree, dir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	crossed, stored := int64(0), int64(0)
	for i := range transferKills + 1 {
		n, err := f.run(ctx, tree.Bytes()*int64(i+1)/(transferKills+2), i < transferKills)
		if err != nil {
			return "", fmt.Errorf("get number %d: %w", i+1, err)
		}
		if most := (tree.Bytes() - stored) * 101 / 100; n > most { // frames take less than 1 %
			return "", fmt.Errorf("get number %d: %d bytes crossed, although %d of %d were stored", i+1, n, stored, tree.Bytes())
		}
		crossed += n
		if stored, err = f.stored(); err != nil {
			return "", err
		}
		if stored == 0 {
			return "", fmt.Errorf("get number %d: nothing is stored after %d bytes", i+1, n)
		}
	}
	if err := equalFolders(from, filepath.Join(dir, "downloads", "photos")); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d files, %d MiB, killed -9 %d times: equal, %.0f%% crossed twice", tree.Files(), tree.Bytes()>>20, transferKills,
		100*max(0, float64(crossed)/float64(tree.Bytes())-1)), nil
}

// makePhotos makes what is to be sent.
func makePhotos(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	data := make([]byte, transferSize)
	_, _ = rand.Read(data) // never fails
	err := os.WriteFile(filepath.Join(dir, "large"), data, 0o644)
	for i := range transferSmall {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, fmt.Sprintf("small %d", i)), data[i:][:i*10], 0o644))
	}
	return err
}

// fetching is a tree that the lab's b shares with one ticket, and where processes fetch it to.
type fetching struct {
	server  *peerlane.Server
	service *transfer.Service
	begun   chan *transfer.Transfer
	ticket  string
	dir     string
}

func newFetching(l *lab, tree *source.Tree, dir string) (*fetching, error) {
	f := &fetching{begun: make(chan *transfer.Transfer, transferKills+1), dir: dir}
	var err error
	if f.service, err = transfer.NewService(nil); err != nil {
		return nil, err
	}
	config := peerlane.DefaultServerConfig()
	config.AdmitAll = true
	if f.server, err = peerlane.NewServer(l.b.Host(), config); err != nil {
		return nil, err
	}
	inDemo.show(nil, f.server)
	f.service.Handle(f.server)
	share, err := f.service.Share(tree, &transfer.ShareOptions{OnBegun: func(t *transfer.Transfer) { f.begun <- t }})
	if err == nil {
		err = f.server.Listen(transferTag)
	}
	if err == nil {
		f.ticket, err = ticket.Ticket{
			Sources: []peer.AddrInfo{l.b.Info()}, Root: share.Ref().Root, Token: share.Ref().Token,
		}.Encode()
	}
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// close does not wait for the sessions of processes that were killed: they would wait for another connection.
func (f *fetching) close() error {
	defer inDemo.hide(nil, f.server)
	err := f.service.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = f.server.Shutdown(ctx) // it says so
	return err
}

// run has one process fetch, to the end, or until it has so many bytes and is killed. It returns how many bytes crossed.
func (f *fetching) run(ctx context.Context, until int64, kill bool) (crossed int64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	var out bytes.Buffer
	get := exec.CommandContext(ctx, self)
	get.Args = []string{"peerlane", "get", "--rate", transferRate, "--sync", "each", f.ticket, filepath.Join(f.dir, "downloads")}
	get.Env = append(os.Environ(), "XDG_CONFIG_HOME="+f.dir, "HOME="+f.dir)
	get.Stdout, get.Stderr = &out, &out
	if err := get.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- get.Wait() }() // ends with the process, which ctx ends
	var t *transfer.Transfer
	select {
	case t = <-f.begun:
	case err := <-ended:
		return 0, fmt.Errorf("%w: %s", err, out.Bytes())
	}
	if !kill {
		if err := <-ended; err != nil {
			return 0, fmt.Errorf("%w: %s", err, out.Bytes())
		}
		r, err := t.Wait()
		return r.Progress.Crossed, err
	}
	for p := range t.Watch(ctx, 10*time.Millisecond) {
		if p.Verified >= until {
			break
		}
	}
	if err := get.Process.Kill(); err != nil {
		return 0, err
	}
	if err := <-ended; err == nil {
		return 0, errors.New("it had ended before it was killed")
	}
	for _, s := range f.server.Sessions() {
		s.Abort() // it would wait for the process to come back
	}
	r, _ := t.Wait()
	return r.Progress.Crossed, ctx.Err()
}

// stored returns how many bytes a process has stored that no other has to fetch again.
func (f *fetching) stored() (int64, error) {
	unfinished, err := transfer.FindUnfinished(filepath.Join(f.dir, "downloads"))
	if err != nil {
		return 0, err
	}
	total := int64(0)
	for _, u := range unfinished {
		total += u.Bytes
	}
	published, err := os.ReadDir(filepath.Join(f.dir, "downloads", "photos"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for _, entry := range published {
		info, err := entry.Info()
		if err != nil {
			return 0, err
		}
		total += info.Size()
	}
	return total, nil
}

// equalFolders compares the files of two folders.
func equalFolders(a, b string) error {
	want, err := os.ReadDir(a)
	if err != nil {
		return err
	}
	got, err := os.ReadDir(b)
	if err != nil {
		return err
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d of %d files are there", len(got), len(want))
	}
	for _, f := range want {
		x, err := os.ReadFile(filepath.Join(a, f.Name()))
		if err != nil {
			return err
		}
		y, err := os.ReadFile(filepath.Join(b, f.Name()))
		if err != nil {
			return err
		}
		if !bytes.Equal(x, y) {
			return fmt.Errorf("%q is not what was sent", f.Name())
		}
	}
	return nil
}
