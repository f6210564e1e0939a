package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/peerlane/peerlane"
)

const (
	httpCount   = 50
	httpSize    = 256 << 10
	oldCount    = 100
	oldSize     = 64 << 10
	legacyTag   = demoTag + "legacy"
	oldPeersTag = demoTag + "oldpeer"
)

// httpOverPeers: net/http without a port or a host name. The server knows its caller's Peer ID.
func httpOverPeers(ctx context.Context, l *lab) (figure string, err error) {
	listener, err := peerlane.ListenConfig{AddrStyle: peerlane.AddrPeerPort}.Listen(l.b.Host(), demoTag+"http")
	if err != nil {
		return "", err
	}
	server := &http.Server{ReadHeaderTimeout: stepTime, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		_, _ = io.Copy(h, r.Body) // what is missing shows in the hash
		who, _, _ := net.SplitHostPort(r.RemoteAddr)
		w.Header().Set("Caller", who)
		_, _ = w.Write(h.Sum(nil)) // likewise
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // ends when server is closed
	defer func() {
		err = errors.Join(err, server.Close())
		if e := <-served; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}()
	transport := &http.Transport{DialContext: (&peerlane.Dialer{Host: l.a.Host(), Tag: demoTag + "http"}).DialContext}
	defer transport.CloseIdleConnections()
	began := time.Now()
	for range httpCount {
		if err := post(ctx, &http.Client{Transport: transport}, l); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d POSTs of %d KiB, hashes equal, caller known, %s each",
		httpCount, httpSize>>10, shortTime(time.Since(began)/httpCount)), nil
}

// post sends one request and checks the answer.
func post(ctx context.Context, c *http.Client, l *lab) error {
	body := random(httpSize)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.b.ID().String()+"/hash", bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	got, err := io.ReadAll(resp.Body)
	want := sha256.Sum256(body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK || !bytes.Equal(got, want[:]):
		return fmt.Errorf("http: status %s, hash %x, want %x", resp.Status, got, want)
	case resp.Header.Get("Caller") != l.a.ID().String():
		return fmt.Errorf("http: the caller was seen as %q", resp.Header.Get("Caller"))
	}
	return nil
}

// writeOld and readOld are pointsub v0.0.2's wire, written down here once more so that the demo does not test peerlane's
// code with itself: a 4-byte big-endian length, and so many bytes.
func writeOld(w io.Writer, body []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

func readOld(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > oldSize {
		return nil, fmt.Errorf("old wire: a body of %d bytes", n)
	}
	body := make([]byte, n)
	_, err := io.ReadFull(r, body)
	return body, err
}

// oldWireServed: a peer that knows only pointsub's wire calls a Server.
func oldWireServed(ctx context.Context, l *lab) (figure string, err error) {
	x, err := newExchange(l, legacyTag, reverseHandler, keys{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	for i := range oldCount {
		if err := oldCall(ctx, l, numbered(i, oldSize)); err != nil {
			return "", fmt.Errorf("call %d: %w", i, err)
		}
	}
	return fmt.Sprintf("%d calls of %d KiB by an old peer, all answered", oldCount, oldSize>>10), nil
}

// oldCall makes one call as pointsub v0.0.2 does: it closes nothing before the answer is there.
func oldCall(ctx context.Context, l *lab, body []byte) error {
	s, err := l.a.Host().NewStream(ctx, l.b.ID(), legacyTag)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // the answer is here, or there is an error already
	deadline, _ := ctx.Deadline()    // every step has one
	if err := s.SetDeadline(deadline); err != nil {
		return err
	}
	if err := writeOld(s, body); err != nil {
		return err
	}
	got, err := readOld(s)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, reversed(body)) {
		return errors.New("old wire: another answer")
	}
	if n, err := s.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("old wire: after the answer: %d bytes, %w", n, err)
	}
	return nil
}

// oldWireCalled: a Client calls a peer that knows only pointsub's wire.
func oldWireCalled(ctx context.Context, l *lab) (figure string, err error) {
	l.b.Host().SetStreamHandler(oldPeersTag, func(s network.Stream) {
		if body, err := readOld(s); err == nil {
			_ = writeOld(s, reversed(body)) // the caller misses it
		}
		_ = s.Close() // likewise
	})
	defer l.b.Host().RemoveStreamHandler(oldPeersTag)
	c, err := peerlane.NewClient(l.a.Host(), nil)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	x := &exchange{lab: l, tag: oldPeersTag, client: c}
	for i := range oldCount {
		if err := x.call(ctx, numbered(i, oldSize)); err != nil {
			return "", fmt.Errorf("call %d: %w", i, err)
		}
	}
	return fmt.Sprintf("%d calls of %d KiB to an old peer, all answered", oldCount, oldSize>>10), nil
}
