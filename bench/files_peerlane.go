package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

const filesTag = "/bench/files/1.0.0"

// A filePair is a client with a session at a server, over TCP.
type filePair struct {
	*hostPair
	server  *peerlane.Server
	client  *peerlane.Client
	session *session.Session
}

// newFilePair returns a pair that is connected, its session sealed or not.
func newFilePair(sealed bool) (*filePair, error) {
	hosts, err := newHostPair(overTCP)
	if err != nil {
		return nil, err
	}
	p := &filePair{hostPair: hosts}
	if err := p.start(sealed); err != nil {
		return nil, hosts.fail(err)
	}
	return p, nil
}

func (p *filePair) start(sealed bool) error {
	serve, dial := peerlane.DefaultServerConfig(), peerlane.DefaultClientConfig()
	serve.AdmitAll, dial.AdmitAll = true, true // with a key it is the key that admits
	var err error
	if p.server, err = peerlane.NewServer(p.listener, serve); err != nil {
		return err
	}
	p.push(p.stopServer)
	if p.client, err = peerlane.NewClient(p.dialer, dial); err != nil {
		return err
	}
	p.push(p.client.Close)
	if sealed {
		if err := usePSK(p.client, p.server); err != nil {
			return err
		}
	}
	if err := p.server.Start(filesTag, echo); err != nil {
		return err
	}
	if err := p.connect(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	p.session, err = p.client.Connect(ctx, p.listener.ID(), filesTag)
	return err
}

// dial is a transfer.Dialer.
func (p *filePair) dial(context.Context) (*session.Session, error) { return p.session, nil }

// stopServer stops the server. A fetch that was cut off has not read the rest, which is no failure here.
func (p *filePair) stopServer() error {
	if err := p.server.Stop(); err != nil && !errors.Is(err, syscall.EPIPE) {
		return err
	}
	return nil
}

// Stop ends the session, and all that was started on it.
func (p *filePair) Stop() error { return p.run() }

// fetchMover is the subject: what is shared was hashed before, and is fetched by
// its root, both ends with the defaults.
type fetchMover struct {
	sealed bool // under a pre-shared key, above libp2p's security
}

// Name returns the mover's name.
func (m fetchMover) Name() string {
	if m.sealed {
		return "peerlane fetch, sealed"
	}
	return "peerlane fetch"
}

// Missing returns nothing.
func (fetchMover) Missing() string { return "" }

// Start shares the tree.
func (m fetchMover) Start(t *fileTree) (runningMover, error) { return startFetch(t, m.sealed) }

// runningFetch is a started fetchMover.
type runningFetch struct {
	*filePair
	share *transfer.Share
}

func startFetch(t *fileTree, sealed bool) (*runningFetch, error) {
	pair, err := newFilePair(sealed)
	if err != nil {
		return nil, err
	}
	s := &runningFetch{filePair: pair}
	if err := s.serve(t); err != nil {
		return nil, s.fail(err)
	}
	return s, nil
}

func (s *runningFetch) serve(t *fileTree) error {
	service, err := transfer.NewService(nil)
	if err != nil {
		return err
	}
	s.push(service.Close)
	service.Handle(s.server)
	tree, err := source.Walk(context.Background(), []string{t.dir}, nil)
	if err != nil {
		return err
	}
	s.push(tree.Close)
	if err := tree.Hash(context.Background(), nil); err != nil {
		return err
	}
	if s.share, err = service.Share(tree, nil); err != nil {
		return err
	}
	s.push(func() error { s.share.Close(); return nil })
	return nil
}

// fetch begins a fetch of the tree.
func (s *runningFetch) fetch(ctx context.Context, to string) *transfer.Transfer {
	return transfer.Fetch(ctx, []transfer.Dialer{s.dial}, s.share.Ref(), to, nil)
}

// Move fetches the tree.
func (s *runningFetch) Move(ctx context.Context, to string) error { return wait(s.fetch(ctx, to)) }

// wait waits for a transfer, and fails if a single file has not come.
func wait(t *transfer.Transfer) error {
	result, err := t.Wait()
	if err == nil && len(result.Failed) > 0 {
		err = fmt.Errorf("%d files failed, the first: %w", len(result.Failed), result.Failed[0])
	}
	return err
}

// pushMover finds the files and hashes them while it sends them.
type pushMover struct{}

// Name returns the mover's name.
func (pushMover) Name() string { return "peerlane push" }

// Missing returns nothing.
func (pushMover) Missing() string { return "" }

// Start starts who takes the files.
func (pushMover) Start(t *fileTree) (runningMover, error) {
	pair, err := newFilePair(false)
	if err != nil {
		return nil, err
	}
	s := &runningPush{filePair: pair, from: t.dir, to: make(chan string, 1)}
	service, err := transfer.NewService(&transfer.ServiceConfig{Receive: s.receive})
	if err != nil {
		return nil, s.fail(err)
	}
	s.push(service.Close)
	service.Handle(s.server)
	return s, nil
}

// runningPush is a started pushMover.
type runningPush struct {
	*filePair
	from string
	to   chan string // where the next one goes
}

func (s *runningPush) receive(context.Context, transfer.Incoming) (*transfer.Destination, error) {
	return &transfer.Destination{Dir: <-s.to}, nil
}

// Move walks the tree and pushes it.
func (s *runningPush) Move(ctx context.Context, to string) error {
	s.to <- to
	tree, err := source.Walk(ctx, []string{s.from}, nil)
	if err != nil {
		return err
	}
	s.filePair.push(tree.Close)
	return wait(transfer.Push(ctx, s.dial, tree, nil))
}
