package transfer

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"sync"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/wire"
	"github.com/peerlane/peerlane/transfer/source"
)

// A Share is a tree that peers may fetch.
type Share struct {
	v     *Service
	ref   Ref
	offer *offer
	o     ShareOptions

	mu     sync.Mutex
	holder string // of a token for one peer: the first peer that has shown it
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// ShareOptions are the options of Service.Share. Nil and the zero value are useful.
type ShareOptions struct {
	// Name is the tree's name at the receiver, if there are several entries at its top. If empty, the tree's own. A single entry has its own
	// name there.
	Name string
	// Token is the token that a peer must present, at most 64 bytes. If nil, a random one of 16 bytes.
	Token []byte
	// Many lets several peers fetch the tree. Otherwise only the first peer that presents the token may, any number of times.
	Many bool
	// OnBegun, if not nil, is called with each transfer of the tree. It must not block.
	OnBegun func(*Transfer)
}

// Ref returns the Ref that a peer needs to fetch the tree. The Token is a copy.
func (s *Share) Ref() Ref { return Ref{Root: s.ref.Root, Token: bytes.Clone(s.ref.Token)} }

// Share lets peers fetch a tree until the Share is closed. The tree remains the caller's, which must close it after the Share.
func (v *Service) Share(tree *source.Tree, o *ShareOptions) (*Share, error) {
	if o == nil {
		o = &ShareOptions{}
	}
	offer, err := newOffer(tree, o.Name)
	if err != nil {
		return nil, fault.About("share", "", err)
	}
	s := &Share{v: v, o: *o, offer: offer}
	s.o.Token = bytes.Clone(o.Token)
	if s.o.Token == nil {
		s.o.Token = make([]byte, 16)
		_, _ = rand.Read(s.o.Token) // never fails
	}
	if n := len(s.o.Token); n > wire.MaxToken {
		return nil, fault.About("share", "", invalidf("ShareOptions.Token has %d bytes, at most %d", n, wire.MaxToken))
	}
	s.ref = Ref{s.offer.root, s.o.Token}
	s.ctx, s.cancel = context.WithCancelCause(v.ctx)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shares[s.ref.Root] = append(v.shares[s.ref.Root], s)
	return s, nil
}

// Close ends the sharing and its transfers.
func (s *Share) Close() {
	s.v.mu.Lock()
	all := s.v.shares[s.ref.Root]
	for i, other := range all {
		if other == s {
			all = append(all[:i:i], all[i+1:]...)
			break
		}
	}
	if s.v.shares[s.ref.Root] = all; len(all) == 0 {
		delete(s.v.shares, s.ref.Root)
	}
	s.v.mu.Unlock()
	s.cancel(&Error{Code: CodeCanceled, Text: "the sender has stopped it"})
}

// find returns the share that a GET is entitled to, or nil.
func (v *Service) find(g wire.Get, peer string) *Share {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.shares[g.Root] {
		if subtle.ConstantTimeCompare(s.ref.Token, g.Token) == 1 && s.admit(peer) {
			return s
		}
	}
	return nil
}

// admit reports whether a peer that has presented the token may fetch.
func (s *Share) admit(peer string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder == "" {
		s.holder = peer
	}
	return s.o.Many || s.holder == peer
}

// serve sends the tree to one peer.
func (s *Share) serve(in *incomingLink, known bool) error {
	t, ctx := newTransfer(sends, in.s.Peer(), in.v.cfg.Options)
	stop := context.AfterFunc(s.ctx, func() { t.cancel(context.Cause(s.ctx)) })
	defer stop()
	defer t.on(in.s)()
	s.offer.count(t)
	begun(in.v.cfg.OnBegun, t)
	begun(s.o.OnBegun, t)
	sender := newSender(t, s.offer, in.ctl, in.caps)
	leave, err := in.join(ctx, sender.lane)
	if err == nil {
		err = sender.run(ctx, known, func() {})
		leave()
	}
	in.ctl.close(err) // before the transfer is reported as over; this closes its stream
	t.end(ended("serve", in.s.Peer(), err))
	return err
}
