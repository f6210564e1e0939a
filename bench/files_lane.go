package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/peerlane/peerlane/bulk"
)

const (
	copyName   = "copy"    // of the lane
	copyBuffer = 256 << 10 // at both ends
	copyHeader = 4 + 8     // length of the name, size of the file
	mostName   = 4096
)

// laneMover writes the files to a dedicated lane, one after another behind name
// and size: what the lane could do if nothing were verified, resumed or kept safe.
type laneMover struct{}

// Name returns the mover's name.
func (laneMover) Name() string { return "lane copy" }

// Missing returns nothing.
func (laneMover) Missing() string { return "" }

// Start starts the side that receives.
func (laneMover) Start(t *fileTree) (runningMover, error) {
	pair, err := newFilePair(false)
	if err != nil {
		return nil, err
	}
	s := &runningCopy{filePair: pair, from: filepath.Dir(t.dir), to: make(chan string, 1), done: make(chan error, 1)}
	bulk.Handle(pair.server, copyName, nil, func(l *bulk.Lane) { s.done <- receiveTree(l, <-s.to) })
	return s, nil
}

// runningCopy is a started laneMover.
type runningCopy struct {
	*filePair
	from string
	to   chan string // where the next one goes
	done chan error  // what became of it
}

// Move sends the tree over a new lane.
func (s *runningCopy) Move(ctx context.Context, to string) error {
	lane, err := bulk.Open(ctx, s.session, copyName, &bulk.Options{Mode: bulk.Dedicated})
	if err != nil {
		return err
	}
	s.to <- to
	err = sendTree(lane, s.from)
	if err == nil {
		err = lane.CloseWrite()
	}
	if err != nil {
		return errors.Join(err, lane.Close(), <-s.done)
	}
	return errors.Join(<-s.done, lane.Close())
}

// sendTree writes all files below dir.
func sendTree(w io.Writer, dir string) error {
	b := bufio.NewWriterSize(struct{ io.Writer }{w}, copyBuffer)
	buf := make([]byte, copyBuffer)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return sendFile(b, filepath.ToSlash(name), path, buf)
	})
	return errors.Join(err, b.Flush())
}

// sendFile writes one file behind its header.
func sendFile(b *bufio.Writer, name, path string, buf []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header := binary.BigEndian.AppendUint32(buf[:0], uint32(len(name)))
	header = binary.BigEndian.AppendUint64(header, uint64(info.Size()))
	if _, err := b.Write(append(header, name...)); err != nil {
		return err
	}
	if info.Size() >= copyBuffer { // then what is read goes to the lane as it is
		if err := b.Flush(); err != nil {
			return err
		}
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{b}, struct{ io.Reader }{f}, buf)
	return err
}

// receiveTree makes the files that r has in the directory dir.
func receiveTree(r io.Reader, dir string) error {
	b := bufio.NewReaderSize(r, copyBuffer)
	buf := make([]byte, copyBuffer)
	made := ""
	for {
		name, size, err := receiveHeader(b, buf)
		if err == io.EOF { // at the start of a header
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dir, name)
		if folder := filepath.Dir(path); folder != made {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return err
			}
			made = folder
		}
		if err := receiveFile(b, path, size, buf); err != nil {
			return err
		}
	}
}

// receiveHeader returns name and size of the next file. It returns io.EOF only
// when there is none.
func receiveHeader(r io.Reader, buf []byte) (string, int64, error) {
	header := buf[:copyHeader]
	if _, err := io.ReadFull(r, header); err != nil {
		return "", 0, err
	}
	n, size := binary.BigEndian.Uint32(header), binary.BigEndian.Uint64(header[4:])
	if n > mostName {
		return "", 0, fmt.Errorf("name of %d bytes: the limit is %d", n, mostName)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		if err == io.EOF { // which would be the end of the files
			err = io.ErrUnexpectedEOF
		}
		return "", 0, fmt.Errorf("name: %w", err)
	}
	name := filepath.FromSlash(string(buf[:n]))
	if !filepath.IsLocal(name) {
		return "", 0, fmt.Errorf("name %q leads out of the directory", name)
	}
	return name, int64(size), nil
}

// receiveFile makes one file.
func receiveFile(r io.Reader, path string, size int64, buf []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, io.LimitReader(r, size), buf)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return errors.Join(err, f.Close())
}
