package peerlane

import (
	"log/slog"
	"net"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/codes"
)

// Listen serves a tag on a host, as a zero ListenConfig does. The listener is a *Listener and its conns are *Conn.
func Listen(h host.Host, tag protocol.ID) (net.Listener, error) {
	l, err := ListenConfig{}.listen(h, tag, nil)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// defaultBacklog is the default of ListenConfig.Backlog.
const defaultBacklog = 128

// maxBacklog bounds ListenConfig.Backlog, of which each place takes 8 bytes at once.
const maxBacklog = 1 << 20

// A ListenConfig holds the options of a listener. The zero value is ready to use.
type ListenConfig struct {
	// Backlog is how many conns may wait for Accept, or for a handler of Serve. A conn beyond that is reset: its dialer
	// gets an *Error that matches ErrUnavailable, mostly at the first Read. If zero, 128. At most 2^20.
	Backlog int

	// MaxConns is how many handlers of Serve may run at once. If zero, 1024. If negative, it is invalid. Listen does not
	// use it.
	MaxConns int

	// Logger receives the panics of Serve's handlers. If nil, they are not logged.
	Logger *slog.Logger

	// AddrStyle is the style of Addr and of the conns' LocalAddr and RemoteAddr. If zero, AddrPeer. Addr has no
	// socket and shows AddrSocket as AddrPeerPort.
	AddrStyle AddrStyle
}

func (c ListenConfig) withDefaults() ListenConfig {
	if c.Backlog == 0 {
		c.Backlog = defaultBacklog
	}
	if c.MaxConns == 0 {
		c.MaxConns = defaultMaxConns
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c ListenConfig) validate() error {
	if c.Backlog < 0 || c.Backlog > maxBacklog {
		return invalidf("ListenConfig.Backlog: %d is not within 0 to %d", c.Backlog, maxBacklog)
	}
	if c.MaxConns < 0 {
		return invalidf("ListenConfig.MaxConns: %d is negative", c.MaxConns)
	}
	return c.AddrStyle.validate("ListenConfig.AddrStyle")
}

// Listen serves a tag on a host until the listener is closed; closing the host does not close it. It fails with
// ErrInUse if the tag already has a listener or a stream handler there, and with ErrInvalid.
func (c ListenConfig) Listen(h host.Host, tag protocol.ID) (*Listener, error) {
	return c.listen(h, tag, nil)
}

// A Listener is a net.Listener for one tag of one host. libp2p hands it each stream, and it keeps a bounded number until
// Accept takes them. It runs no goroutine, except for the handlers of ListenConfig.Serve.
type Listener struct {
	host  host.Host
	tag   protocol.ID
	opts  connOptions
	queue chan *Conn    // its capacity is the backlog; sent to only with mu held
	done  chan struct{} // closed by Close

	handler  func(*Conn) // nil: Accept
	maxConns int
	log      *slog.Logger
	handlers sync.WaitGroup // serve and the handlers

	mu      sync.Mutex // never held across I/O
	closed  bool
	refused uint64
	serving map[*Conn]struct{} // conns with a handler
}

func (c ListenConfig) listen(h host.Host, tag protocol.ID, handler func(*Conn)) (*Listener, error) {
	l, err := newListener(h, tag, c)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: Network, Err: err}
	}
	l.handler = handler
	if err := register(l); err != nil {
		return nil, &net.OpError{Op: "listen", Net: Network, Source: l.Addr(), Err: err}
	}
	if handler != nil {
		l.handlers.Go(l.serve)
	}
	return l, nil
}

func newListener(h host.Host, tag protocol.ID, config ListenConfig) (*Listener, error) {
	if h == nil {
		return nil, invalidf("host: nil")
	}
	if err := validateTag("tag", tag); err != nil {
		return nil, err
	}
	if err := config.validate(); err != nil {
		return nil, err
	}
	config = config.withDefaults()
	return &Listener{
		host:  h,
		tag:   tag,
		opts:  connOptions{style: config.AddrStyle},
		queue: make(chan *Conn, config.Backlog),
		done:  make(chan struct{}),

		maxConns: config.MaxConns,
		log:      config.Logger,
		serving:  make(map[*Conn]struct{}),
	}, nil
}

// Accept returns the next conn, a *Conn. After Close it always fails with net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	if l.handler != nil {
		err := invalidf("Accept: the listener has a handler, by ListenConfig.Serve")
		return nil, &net.OpError{Op: "accept", Net: Network, Source: l.Addr(), Err: err}
	}
	c, err := l.accept()
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (l *Listener) accept() (*Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: Network, Source: l.Addr(), Err: net.ErrClosed}
	}
}

// Close stops serving the tag and resets the conns that Accept has not taken; their dialers get ErrGoingAway. Accepted
// conns live on. The conns of a Serve are reset in the same way, and their handlers are not waited for: see Shutdown. It
// may be called again.
func (l *Listener) Close() error {
	l.stop()
	l.resetServed()
	return nil
}

// stop stops serving the tag, once, and resets the conns of the backlog.
func (l *Listener) stop() {
	if !l.markClosed() {
		return
	}
	unregister(l)
	for {
		select {
		case c := <-l.queue:
			c.resetWith(codes.GoingAway)
		default:
			return
		}
	}
}

func (l *Listener) markClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.closed = true
	close(l.done)
	return true
}

// Addr returns the host's own address.
func (l *Listener) Addr() net.Addr {
	return styledAddr(l.opts.style, l.host.ID(), 0, nil)
}

// ListenerStats are the counters of a Listener.
type ListenerStats struct {
	Pending int    // conns that wait for Accept now
	Refused uint64 // conns reset because the backlog was full
}

// Stats returns the counters as they are now.
func (l *Listener) Stats() ListenerStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ListenerStats{Pending: len(l.queue), Refused: l.refused}
}

// handle takes a stream from libp2p, which runs it on a goroutine of the stream; it must not block.
func (l *Listener) handle(s network.Stream) {
	c := newConn(s, l.tag, l.opts)
	if code := l.offer(c); code != codes.OK {
		c.resetWith(code)
	}
}

// offer queues a conn for Accept, or returns the code to refuse it with.
func (l *Listener) offer(c *Conn) codes.Code {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return codes.GoingAway
	}
	select {
	case l.queue <- c:
		return codes.OK
	default:
		l.refused++
		return codes.Unavailable
	}
}

// served is which listener serves which tag of which host. libp2p cannot tell: a second handler silently replaces the
// first, and removing one removes whichever is there. It is keyed by Network because several host.Host values may
// stand on one.
var served struct {
	sync.Mutex

	byHost map[network.Network]map[protocol.ID]*Listener
}

// register makes l the listener of its tag: first in the table, which decides who has it, then in libp2p.
func register(l *Listener) error {
	if !claim(l) {
		return &Error{Op: "listen", Link: string(l.tag), Err: ErrInUse}
	}
	l.host.SetStreamHandler(l.tag, l.handle)
	return nil
}

// unregister undoes register.
func unregister(l *Listener) {
	l.host.RemoveStreamHandler(l.tag)
	served.Lock()
	defer served.Unlock()
	key := l.host.Network()
	delete(served.byHost[key], l.tag)
	if len(served.byHost[key]) == 0 {
		delete(served.byHost, key)
	}
}

// claim enters l in the table, unless its tag is taken there or by a handler that is none of ours.
func claim(l *Listener) bool {
	served.Lock()
	defer served.Unlock()
	key := l.host.Network()
	if served.byHost[key][l.tag] != nil || slices.Contains(l.host.Mux().Protocols(), l.tag) {
		return false
	}
	if served.byHost == nil {
		served.byHost = make(map[network.Network]map[protocol.ID]*Listener)
	}
	if served.byHost[key] == nil {
		served.byHost[key] = make(map[protocol.ID]*Listener)
	}
	served.byHost[key][l.tag] = l
	return true
}

// listenerOf returns the listener of the first of tags that has one on h, nil if none has.
func listenerOf(h host.Host, tags []protocol.ID) *Listener {
	served.Lock()
	defer served.Unlock()
	for _, tag := range tags {
		if l := served.byHost[h.Network()][tag]; l != nil {
			return l
		}
	}
	return nil
}
