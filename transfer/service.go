package transfer

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/lane"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// ServiceConfig configures a Service. Nil and the zero value refuse everything but fetches of shared trees.
type ServiceConfig struct {
	// Options apply to the transfers that peers begin by fetching.
	Options
	// Admit decides whether a peer may push at all, before the peer says what. It must not block. An error refuses the push, like one of
	// Receive. If nil, any peer may push.
	Admit func(peer string) error
	// Receive decides whether to accept a push. It may take as long as a user needs; ctx ends when the peer gives up. An error refuses the
	// push: the peer receives only CodeDenied, or CodeBusy, after which it tries again, and the Text if the error is an *Error. Returning nil without an error refuses it too. If
	// Receive is nil, all pushes are refused. The lists of all pushes that wait for Receive share 512 MiB. A push beyond that is refused
	// with CodeBusy, and is retried automatically; one of less than 1 MiB always has room.
	Receive func(ctx context.Context, in Incoming) (*Destination, error)
	// OnBegun, if not nil, is called with each transfer that a peer has begun and that was not refused, including one that a wrong
	// Destination ends at once. It must not block.
	OnBegun func(*Transfer)
	// Pending is how many transfers a peer may have begun at a time. If zero, 4. A further one is refused with CodeBusy, and the peer
	// retries it automatically for its Options.ResumeWindow.
	Pending int
}

// Incoming describes a push that a peer proposes.
type Incoming struct {
	Peer    string // the sender, as the session names it
	Name    string // of the only entry at the top, or if there are several the peer's name for them: untrusted
	ID      string // identifies the tree: the same files have the same ID again
	Files   int
	Bytes   int64
	LeftOut int     // items that the peer could not send
	Entries []Entry // checked by the manifest's own rules; must not be changed
}

// Destination is the destination of a push.
type Destination struct {
	Dir string // must exist
	ReceiveOptions
}

// A Service answers the transfers that peers begin: fetches of shared trees, and pushes. It is safe for concurrent use.
type Service struct {
	cfg ServiceConfig

	mu      sync.Mutex
	shares  map[[32]byte][]*Share
	joins   map[joinKey]func(*bulk.Lane)
	links   map[string]map[*control]*session.Session // transfers begun by peers, by peer
	pushes  map[pushKey]*pushed
	lists   int64     // bytes of manifests that wait for Receive, as hold counts them
	running int       // handlers of streams
	ended   sync.Cond // signals that running has become 0
	closed  bool
	late    time.Time // when closed: handlers that start later are not waited for

	ctx    context.Context
	cancel context.CancelCauseFunc
}

// joinKey identifies a transfer to its data lanes.
type joinKey struct {
	peer string
	id   wire.ID
}

// pushKey identifies a push: a new attempt replaces the previous one.
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
		c.Pending = 4
	}
	if err := c.Options.validate(); err != nil {
		return nil, err
	}
	if c.Pending < 0 {
		return nil, &Error{Code: CodeInvalid, Text: "ServiceConfig.Pending is negative"}
	}
	v := &Service{
		cfg: c, shares: make(map[[32]byte][]*Share), joins: make(map[joinKey]func(*bulk.Lane)), links: make(map[string]map[*control]*session.Session),
		pushes: make(map[pushKey]*pushed),
	}
	v.ended.L = &v.mu
	v.ctx, v.cancel = context.WithCancelCause(context.Background())
	return v, nil
}

// Handle makes the Service answer the peers of at: a peerlane.Server, a peerlane.Client, a session.Mux. It panics when at is nil.
func (v *Service) Handle(at session.Registrar) {
	at.SetStream(controlName, v.serve)
	bulk.Handle(at, dataName, v.acceptLane, v.serveLane)
}

// Close ends all transfers that peers have begun, and waits for them. Received data stays. It also waits for the streams that are being
// refused, which takes at most a second. Streams that peers open afterwards are refused too, and end with their session. Admit, Receive,
// OnBegun and OnEvent must not call Close, which waits for them.
func (v *Service) Close() error {
	v.cancel(&Error{Code: CodeCanceled, Text: "the peer is stopping"})
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.closed {
		v.closed, v.late = true, time.Now().Add(linger)
	}
	for v.running > 0 {
		v.ended.Wait()
	}
	return nil
}

// runs counts a handler of a stream. Close waits for it until end is called. Close does not wait for handlers that start while it waits,
// because a peer may keep opening streams.
func (v *Service) runs() (end func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed && time.Now().After(v.late) {
		return func() {}
	}
	v.running++
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.running--; v.running == 0 {
			v.ended.Broadcast()
		}
	}
}

func (v *Service) acceptLane(bulk.AcceptInfo) (*bulk.Options, error) {
	return &bulk.Options{Compress: v.cfg.Compress, AllowLimited: true}, nil // the opener opens none where it may not be used
}

// serveLane finds the transfer that a data lane belongs to.
func (v *Service) serveLane(lane *bulk.Lane) {
	defer v.runs()()
	stop := context.AfterFunc(v.ctx, func() { _ = lane.Abort(codes.Cancelled) }) // otherwise Close would wait until the lane names its transfer
	defer stop()
	var hello [wire.LaneHelloSize]byte
	_ = lane.SetReadDeadline(time.Now().Add(helloTimeout)) // a closed lane reports that at the next read
	if _, err := io.ReadFull(lane, hello[:]); err != nil {
		return
	}
	_ = lane.SetReadDeadline(time.Time{}) // same
	id, err := wire.ConsumeLaneHello(hello[:])
	if err != nil {
		return // spec 4.1
	}
	v.mu.Lock()
	join := v.joins[joinKey{lane.Peer(), id}]
	v.mu.Unlock()
	if stop(); join != nil { // its transfer ends it
		join(lane)
	}
}

// enter registers a control stream, and reports whether it may be served. At the limit, transfers that have lost their connection make
// room: a peer whose process was killed begins again before its session is over.
func (v *Service) enter(st *session.Stream, ctl *control) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return &Error{Code: CodeCanceled, Text: "the peer is stopping"}
	}
	peer := st.Session().Peer()
	links := v.links[peer]
	if links == nil {
		links = make(map[*control]*session.Session)
		v.links[peer] = links
	}
	alive := 0
	for _, s := range links {
		if s.State() != session.StateDetached {
			alive++
		}
	}
	switch {
	case alive >= v.cfg.Pending:
		return &Error{Code: CodeBusy, Text: "too many transfers of this peer at once: try again when one has ended"}
	case len(links) >= v.cfg.Pending:
		for old, s := range links {
			if s.State() == session.StateDetached {
				old.interrupt(&Error{Code: CodeLost, Text: "the peer has begun another transfer"})
			}
		}
	}
	links[ctl] = st.Session()
	return nil
}

func (v *Service) leave(peer string, ctl *control) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if delete(v.links[peer], ctl); len(v.links[peer]) == 0 {
		delete(v.links, peer)
	}
}

// serve serves a control stream that a peer has opened.
func (v *Service) serve(st *session.Stream) {
	defer v.runs()()
	peer := st.Session().Peer()
	ctl := newControl(st)
	err := v.enter(st, ctl)
	if err == nil {
		defer v.leave(peer, ctl)
		err = v.greet(st.Session(), ctl)
	}
	ctl.close(err)
}

// greet answers HELLO, and then serves the peer's request.
func (v *Service) greet(s *session.Session, ctl *control) error {
	stop := context.AfterFunc(v.ctx, func() { ctl.interrupt(context.Cause(v.ctx)) })
	defer stop()
	theirs, err := readHello(ctl)
	if err != nil {
		return ctl.cause(err)
	}
	ours := wire.Hello{Role: wire.Sender, Lanes: v.cfg.Lanes, Caps: wire.OurCaps, ID: theirs.ID}
	if theirs.Role == wire.Sender {
		ours.Role = wire.Receiver
	}
	if err := ctl.send(wire.KindHello, false, ours.Append); err != nil {
		return err
	}
	in := incomingLink{v: v, s: s, ctl: ctl, key: joinKey{s.Peer(), theirs.ID}, caps: theirs.Caps}
	if theirs.Role == wire.Sender {
		return in.receive()
	}
	return in.send()
}

// incomingLink is a control stream that a peer has opened, after HELLO.
type incomingLink struct {
	v    *Service
	s    *session.Session
	ctl  *control
	key  joinKey
	caps wire.Caps // of the peer

	share lane.Held // of the peer's share: what a manifest takes that it pushes
}

// join makes lane serve the data lanes of the transfer until leave is called. leave waits for them.
func (in *incomingLink) join(ctx context.Context, lane laneFunc) (leave func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var lanes sync.WaitGroup
	open := 0 // guarded by Service.mu
	v := in.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.joins[in.key] != nil {
		cancel()
		return nil, wire.Breachf("a second transfer with the same id")
	}
	v.joins[in.key] = func(l *bulk.Lane) {
		v.mu.Lock()
		if v.joins[in.key] == nil || open == wire.MaxLanes { // more than agreed: some may be lost without this side knowing
			v.mu.Unlock()
			return
		}
		open++
		lanes.Add(1)
		v.mu.Unlock()
		defer lanes.Done()
		serveLane(ctx, l, nil, lane) // the opener decides which connection its lanes run on
		v.mu.Lock()
		open--
		v.mu.Unlock()
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
		return wire.Breachf("%v where GET is due", f.Kind)
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
	if v.cfg.Admit != nil {
		if err := v.cfg.admit(in.s.Peer()); err != nil {
			return refusal(err)
		}
	}
	return in.pushed()
}
