package transfer

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/frame"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer/internal/wire"
	"github.com/peerlane/peerlane/transfer/manifest"
)

// ServiceConfig says what a Service does for peers. Nil, and the zero value, refuse everything but what is shared.
type ServiceConfig struct {
	// Options are those of the transfers that peers begin by fetching.
	Options
	// Admit decides whether a peer may push at all, before it says what. It must not block. An error refuses it, as one of Receive
	// does. If nil, any may.
	Admit func(peer string) error
	// Receive decides on what a peer pushes. It may take its time, as a person does; ctx ends when the peer gives up. An error
	// refuses it: the peer is told no more than CodeDenied, and of an *Error its Text. So does nil without one. If nil, all is
	// refused. The lists of all pushes that wait for it have 512 MiB together: a further one is refused with CodeBusy, and comes
	// again by itself, but one of less than 1 MiB always has room.
	Receive func(ctx context.Context, in Incoming) (*Destination, error)
	// Begun, if not nil, is told of each transfer that a peer has begun, and that was not refused: also of one that a wrong
	// Destination ends at once. It must not block.
	Begun func(*Transfer)
	// Pending is how many transfers a peer may have begun at a time. If zero, 4. A further one is refused with CodeBusy, and comes again
	// by itself for as long as its Options.Patience.
	Pending int
}

// Incoming is what a peer wants to push.
type Incoming struct {
	Peer    string // who, as the session names it
	Name    string // what the peer calls it: untrusted
	ID      string // names it: the same files again have the same
	Files   int
	Bytes   int64
	LeftOut int              // items that the peer could not send
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
	links   map[string]map[*control]*session.Session // what peers have begun, by peer
	pushes  map[pushKey]*pushed
	lists   int64     // bytes of manifests that wait for Receive, as hold counts them
	running int       // handlers of streams
	ended   sync.Cond // running has become 0
	closed  bool
	late    time.Time // when closed: what comes from then on is not waited for

	ctx    context.Context
	cancel context.CancelCauseFunc
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

// Handle has the Service answer the peers of at: a peerlane.Server, a peerlane.Client, a session.Mux. It panics when at is nil.
func (v *Service) Handle(at bulk.Registrar) {
	at.SetStream(controlName, v.serve)
	bulk.Handle(at, dataName, v.acceptLane, v.serveLane)
}

// Close ends all transfers that peers have begun, and waits for them. What they have brought stays. It also waits for the streams that
// are being refused, which takes a second at most; what peers open afterwards is refused likewise, and ends with its session.
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

// runs notes a handler of a stream, which Close waits for until end is called: but not for each that comes while it waits, as a peer may
// open them without an end.
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
	return &bulk.Options{Compress: v.cfg.Compress, AllowLimited: v.cfg.AllowLimited}, nil
}

// serveLane finds the transfer that a data lane is of.
func (v *Service) serveLane(lane *bulk.Lane) {
	defer v.runs()()
	stop := context.AfterFunc(v.ctx, func() { _ = lane.Abort(frame.CodeCancelled) }) // or it is waited for until it says whose it is
	defer stop()
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
	if stop(); join != nil { // its transfer ends it
		join(lane)
	}
}

// enter notes a control stream, and reports whether it may be served. At the bound, transfers that have lost their connection make way:
// a peer whose process was killed begins again before its session is over.
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

// greet answers HELLO, and serves what the peer wants then.
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
	in := incomingLink{v, s, ctl, joinKey{s.Peer(), theirs.ID}, theirs.Caps}
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
}

// join has data lanes of the transfer be served by lane until leave is called, which waits for them.
func (in *incomingLink) join(ctx context.Context, lane func(context.Context, *bulk.Lane)) (leave func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var lanes sync.WaitGroup
	open := 0 // guarded by Service.mu
	v := in.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.joins[in.key] != nil {
		cancel()
		return nil, protocolErrorf("a second transfer with the same id")
	}
	v.joins[in.key] = func(l *bulk.Lane) {
		v.mu.Lock()
		if v.joins[in.key] == nil || open == wire.MaxLanes { // more than were agreed on: some may be lost, and not known to be
			v.mu.Unlock()
			return
		}
		open++
		lanes.Add(1)
		v.mu.Unlock()
		defer lanes.Done()
		serveLane(ctx, l, lane)
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
	if v.cfg.Admit != nil {
		if err := v.cfg.admit(in.s.Peer()); err != nil {
			return refusal(err)
		}
	}
	return in.pushed()
}
