package transfer

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer/internal/wire"
	"github.com/peerlane/peerlane/transfer/manifest"
	"github.com/peerlane/peerlane/transfer/source"
	"github.com/peerlane/peerlane/transfer/staging"
)

// ServiceConfig says what a Service does for peers. Nil, and the zero value, refuse everything but what is shared.
type ServiceConfig struct {
	// Options are those of the transfers that peers begin by fetching.
	Options
	// Receive decides on what a peer pushes. It may take its time, as a person does; ctx ends when the peer gives up. An error
	// refuses it: the peer is told no more than CodeDenied, and of an *Error its Text. If nil, all is refused.
	Receive func(ctx context.Context, in Incoming) (*Destination, error)
	// Begun, if not nil, is told of each transfer that a peer has begun, and that was not refused. It must not block.
	Begun func(*Transfer)
	// Pending is how many transfers there may be with one peer at a time. If zero, 16.
	Pending int
}

// Incoming is what a peer wants to push.
type Incoming struct {
	Peer    string // who, as the session names it
	Name    string // what the peer calls it: untrusted
	ID      string // names it: the same files again have the same
	Files   int
	Bytes   int64
	Entries []manifest.Entry // checked by the manifest's own rules; not to be changed
}

// Destination is where a push goes.
type Destination struct {
	Dir string // must exist
	ReceiveOptions
}

// A Service answers the transfers that peers begin: fetches of what it shares, and pushes. It is safe for concurrent use.
type Service struct {
	cfg ServiceConfig

	mu      sync.Mutex
	shares  map[[32]byte][]*Share
	joins   map[joinKey]func(*bulk.Lane)
	pending map[string]int // transfers by peer
	pushes  map[pushKey]*pushed
	closed  bool
	running sync.WaitGroup
	ctx     context.Context
	cancel  context.CancelCauseFunc
}

// joinKey names a transfer to its data lanes.
type joinKey struct {
	peer string
	id   wire.ID
}

// pushKey names what a peer pushes: another attempt takes the place of the last.
type pushKey struct {
	peer string
	root [32]byte
}

// pushed is a push that is being received.
type pushed struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
}

// NewService returns a Service. cfg may be nil.
func NewService(cfg *ServiceConfig) (*Service, error) {
	if cfg == nil {
		cfg = &ServiceConfig{}
	}
	c := *cfg
	c.Options = c.Options.withDefaults()
	if c.Pending == 0 {
		c.Pending = 16
	}
	if err := c.Options.validate(); err != nil {
		return nil, err
	}
	if c.Pending < 0 {
		return nil, &Error{Code: CodeInvalid, Text: "ServiceConfig.Pending is negative"}
	}
	v := &Service{
		cfg: c, shares: make(map[[32]byte][]*Share), joins: make(map[joinKey]func(*bulk.Lane)), pending: make(map[string]int),
		pushes: make(map[pushKey]*pushed),
	}
	v.ctx, v.cancel = context.WithCancelCause(context.Background())
	return v, nil
}

// Handle has the Service answer the peers of at: a peerlane.Server, a peerlane.Client, a session.Mux.
func (v *Service) Handle(at bulk.Registrar) {
	at.SetStream(controlName, v.serve)
	bulk.Handle(at, dataName, v.acceptLane, v.serveLane)
}

// Close ends all transfers that peers have begun, and waits for them. What they have brought stays.
func (v *Service) Close() error {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.cancel(&Error{Code: CodeCanceled, Text: "the peer is stopping"})
	v.running.Wait()
	return nil
}

func (v *Service) acceptLane(bulk.AcceptInfo) (*bulk.Options, error) {
	return &bulk.Options{Compress: v.cfg.Compress, AllowLimited: v.cfg.AllowLimited}, nil
}

// serveLane finds the transfer that a data lane is of.
func (v *Service) serveLane(lane *bulk.Lane) {
	var hello [wire.LaneHelloSize]byte
	_ = lane.SetReadDeadline(time.Now().Add(helloTimeout)) // a lane that is closed says so when it is read
	if _, err := io.ReadFull(lane, hello[:]); err != nil {
		return
	}
	_ = lane.SetReadDeadline(time.Time{}) // likewise
	id, err := wire.ConsumeLaneHello(hello[:])
	if err != nil {
		return // spec 4.1
	}
	v.mu.Lock()
	join := v.joins[joinKey{lane.Peer(), id}]
	v.mu.Unlock()
	if join != nil {
		join(lane)
	}
}

// enter notes a control stream, and reports whether it may be served.
func (v *Service) enter(peer string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.closed:
		return &Error{Code: CodeCanceled, Text: "the peer is stopping"}
	case v.pending[peer] >= v.cfg.Pending:
		return &Error{Code: CodeTooLarge, Text: "too many transfers at once: wait for one to end"}
	}
	v.pending[peer]++
	v.running.Add(1)
	return nil
}

func (v *Service) leave(peer string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.pending[peer]--; v.pending[peer] == 0 {
		delete(v.pending, peer)
	}
	v.running.Done()
}

// serve serves a control stream that a peer has opened.
func (v *Service) serve(st *session.Stream) {
	peer := st.Session().Peer()
	ctl := newControl(st)
	err := v.enter(peer)
	if err == nil {
		defer v.leave(peer)
		err = v.greet(st.Session(), ctl)
	}
	ctl.close(err)
}

// greet answers HELLO, and serves what the peer wants then.
func (v *Service) greet(s *session.Session, ctl *control) error {
	stop := context.AfterFunc(v.ctx, func() { ctl.interrupt(context.Cause(v.ctx)) })
	defer stop()
	theirs, err := readHello(ctl)
	if err != nil {
		return ctl.cause(err)
	}
	ours := wire.Hello{Role: wire.Sender, Lanes: v.cfg.Lanes, ID: theirs.ID}
	if theirs.Role == wire.Sender {
		ours.Role = wire.Receiver
	}
	if err := ctl.send(wire.KindHello, false, ours.Append); err != nil {
		return err
	}
	in := incomingLink{v, s, ctl, joinKey{s.Peer(), theirs.ID}}
	if theirs.Role == wire.Sender {
		return in.receive()
	}
	return in.send()
}

// incomingLink is a control stream that a peer has opened, after HELLO.
type incomingLink struct {
	v   *Service
	s   *session.Session
	ctl *control
	key joinKey
}

// join has data lanes of the transfer be served by lane until leave is called, which waits for them.
func (in *incomingLink) join(ctx context.Context, lane func(context.Context, *bulk.Lane)) (leave func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var lanes sync.WaitGroup
	v := in.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.joins[in.key] != nil {
		cancel()
		return nil, protocolErrorf("a second transfer with the same id")
	}
	v.joins[in.key] = func(l *bulk.Lane) {
		v.mu.Lock()
		if v.joins[in.key] == nil {
			v.mu.Unlock()
			return
		}
		lanes.Add(1)
		v.mu.Unlock()
		defer lanes.Done()
		serveLane(ctx, l, lane)
	}
	return func() {
		v.mu.Lock()
		delete(v.joins, in.key)
		v.mu.Unlock()
		cancel()
		lanes.Wait()
	}, nil
}

// send serves a fetch (spec 3.2).
func (in *incomingLink) send() error {
	f, err := in.ctl.readWithin(helloTimeout)
	if err != nil {
		return in.ctl.cause(err)
	}
	if f.Kind != wire.KindGet {
		return protocolErrorf("%v where GET is due", f.Kind)
	}
	share := in.v.find(wire.ConsumeGet(f.Body), in.s.Peer())
	if share == nil {
		return &Error{Code: CodeNotFound, Text: "there is no such transfer here: it may be over, or the ticket has been used by another peer"}
	}
	return share.serve(in, f.Flag)
}

// receive serves a push.
func (in *incomingLink) receive() error {
	v := in.v
	if v.cfg.Receive == nil {
		return &Error{Code: CodeDenied, Text: "this peer receives nothing"}
	}
	p := &pending{in: in}
	return p.run()
}

// ErrRefused is for ServiceConfig.Receive to return.
var ErrRefused = errors.New("refused")

// Ref returns what a peer needs to fetch what is shared.
func (s *Share) Ref() Ref { return s.ref }

// A Share is a tree that peers may fetch.
type Share struct {
	v     *Service
	ref   Ref
	offer *offer
	o     ShareOptions

	mu     sync.Mutex
	holder string // of a token for one peer: who has shown it first
	closed bool
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// ShareOptions say how a tree is shared. Nil, and the zero value, are good.
type ShareOptions struct {
	// Name is what it is called at the receiver's. If empty, the tree's.
	Name string
	// Token is what a peer must show, at most 64 bytes. If nil, a random one of 16 bytes.
	Token []byte
	// Many lets several peers fetch it. Otherwise only the first that shows the token may, as often as it likes.
	Many bool
	// Begun, if not nil, is told of each transfer of it. It must not block.
	Begun func(*Transfer)
}

// Share has peers fetch a tree, until the Share is closed. The tree stays the caller's, who closes it after the Share.
func (v *Service) Share(tree *source.Tree, o *ShareOptions) (*Share, error) {
	if o == nil {
		o = &ShareOptions{}
	}
	offer, err := newOffer(tree, o.Name)
	if err != nil {
		return nil, err
	}
	s := &Share{v: v, o: *o, offer: offer}
	if s.o.Token == nil {
		s.o.Token = make([]byte, 16)
		_, _ = rand.Read(s.o.Token) // never fails
	}
	if len(s.o.Token) > 64 {
		return nil, &Error{Op: "share", Code: CodeInvalid, Text: "ShareOptions.Token has more than 64 bytes"}
	}
	s.ref = Ref{s.offer.root, s.o.Token}
	s.ctx, s.cancel = context.WithCancelCause(v.ctx)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shares[s.ref.Root] = append(v.shares[s.ref.Root], s)
	return s, nil
}

// Close ends the sharing, and the transfers of it.
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

// find returns the share that a GET may have, or nil.
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

// admit reports whether a peer that has shown the token may fetch.
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
	t, ctx := newTransfer(Sending, in.s.Peer(), in.v.cfg.Options)
	stop := context.AfterFunc(s.ctx, func() { t.cancel(context.Cause(s.ctx)) })
	defer stop()
	s.offer.count(t)
	for _, begun := range []func(*Transfer){in.v.cfg.Begun, s.o.Begun} {
		if begun != nil {
			begun(t)
		}
	}
	sender := newSender(t, s.offer, in.ctl)
	leave, err := in.join(ctx, sender.lane)
	if err == nil {
		err = sender.run(ctx, s.offer.name, known)
		leave()
	}
	t.end(ended("serve", in.s.Peer(), err))
	return err
}

// pending is a push that is being decided on, and then received.
type pending struct {
	in *incomingLink
	t  *Transfer
}

// run receives a push, from the manifest on.
func (p *pending) run() error {
	in, v := p.in, p.in.v
	ctx, cancel := context.WithCancelCause(v.ctx)
	defer cancel(nil)
	asked := &origin{r: &receiver{o: ReceiveOptions{Rules: &manifest.Rules{Symlinks: true}}}, ctl: in.ctl} // the Destination's Rules come later
	l, err := asked.list(false)
	if err != nil {
		return in.ctl.cause(err)
	}
	dest, err := p.decide(ctx, l)
	if err != nil {
		return in.ctl.cause(err)
	}
	o := dest.ReceiveOptions.withDefaults()
	if err := o.validate(); err != nil {
		return err
	}
	done, err := v.takePlace(ctx, pushKey{in.s.Peer(), l.root}, cancel)
	if err != nil {
		return err
	}
	defer done()
	t, own := newTransfer(Receiving, in.s.Peer(), o.Options)
	stop := context.AfterFunc(ctx, func() { t.cancel(context.Cause(ctx)) })
	defer stop()
	err = p.receive(own, t, o, dest.Dir, l)
	t.end(ended("receive", in.s.Peer(), err))
	return err
}

// decide asks the application. What the peer says meanwhile, which can only be that it gives up, ends the asking.
func (p *pending) decide(ctx context.Context, l listing) (*Destination, error) {
	in := Incoming{Peer: p.in.s.Peer(), Name: l.name, ID: idOf(l.root), Entries: l.entries}
	for i := range l.entries {
		if l.entries[i].Kind == manifest.KindFile {
			in.Files++
			in.Bytes += l.entries[i].Size
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(p.in.s.Context(), cancel)
	defer stop()
	dest, err := p.in.v.cfg.Receive(ctx, in)
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			e = &Error{Code: CodeDenied, Text: "the peer does not take it", Err: err}
		}
		return nil, e
	}
	return dest, nil
}

// takePlace ends an earlier attempt to push the same, and waits for that end.
func (v *Service) takePlace(ctx context.Context, key pushKey, cancel context.CancelCauseFunc) (done func(), err error) {
	mine := &pushed{cancel, make(chan struct{})}
	for {
		v.mu.Lock()
		old := v.pushes[key]
		if old == nil {
			v.pushes[key] = mine
			v.mu.Unlock()
			break
		}
		v.mu.Unlock()
		old.cancel(&Error{Code: CodeLost, Text: "the peer has begun again"})
		select {
		case <-old.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return func() {
		v.mu.Lock()
		delete(v.pushes, key)
		v.mu.Unlock()
		close(mine.done)
	}, nil
}

// receive runs a receiver with the peer as its only origin.
func (p *pending) receive(ctx context.Context, t *Transfer, o ReceiveOptions, dir string, l listing) error {
	in := p.in
	if err := checkRules(l.entries, *o.Rules); err != nil {
		return err
	}
	disk, err := staging.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = disk.Close() }() // what is to last has been synced
	r := newReceiver(ctx, t, o, disk)
	if err := r.begin(l, nil); err != nil {
		r.fail(err)
		return r.run()
	}
	if in.v.cfg.Begun != nil {
		in.v.cfg.Begun(t)
	}
	from := r.newOrigin(in.ctl, in.s.Peer(), in.s.RTT)
	leave, err := in.join(ctx, r.laneOf(from))
	if err != nil {
		r.fail(err)
		return r.run()
	}
	defer leave()
	talked := make(chan struct{})
	go func() { // ends with the stream, which the end of the receiver ends too
		defer close(talked)
		if err := from.run(context.WithoutCancel(ctx)); err != nil {
			r.fail(err)
		}
	}()
	err = r.run()
	<-talked
	return err
}

// checkRules checks entries again, by the rules of their destination.
func checkRules(entries []manifest.Entry, rules manifest.Rules) error {
	check, err := manifest.NewChecker(rules)
	if err != nil {
		return &Error{Code: CodeInvalid, Text: "ReceiveOptions.Rules", Err: err}
	}
	for i := range entries {
		if err := check.Add(entries[i]); err != nil {
			return err
		}
	}
	return nil
}
