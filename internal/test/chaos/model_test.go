package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/session"
)

// The sides.
const (
	dialing   = 0
	accepting = 1
)

var sideNames = [2]string{"dialing", "accepting"}

// A model is one run, and what becomes of everything in it.
type model struct {
	t     *testing.T
	plan  plan
	sum   *totals
	began time.Time
	a, b  host.Host
	fault faultnet.Fault
	road  road

	mu       sync.Mutex
	busy     int // workers and handlers that run
	steps    int // of all workers
	stepped  chan struct{}
	names    int
	events   []string
	sessions map[session.ID]*session.Session // of the accepting side
	opened   chan struct{}                   // closed when there is another one
	talks    []*talk
	messages map[string]*message // by link
	ways     []*way
	logs     []*log
	// shutdownErr is what the road's shutdown has returned, all calls of it.
	shutdownErr error
}

// A talk is one session.
type talk struct {
	id     int
	sides  [2]*session.Session
	closed [2]error  // what Close returns at the end
	lost   [2]losses // what that names
	cut    [2]bool   // this side has cut off what it had, by Abort, the end of its host, or a Shutdown whose time was over
	last   [2]int    // of the one-way messages of each side, the last that was handled
}

// A message is one message or call.
type message struct {
	talk    *talk // nil for a call on a session of the road's choice
	sender  int
	call    bool
	index   int // of one-way messages, on their session and side, from 1
	size    int
	done    bool  // the call has returned
	err     error // with this
	handled int
	refused bool // its handler answered with an error
	garbled bool
	early   bool // it was handled behind a later one
	told    []*session.Error
}

func (x *message) String() string {
	from := "the road's choice"
	if x.talk != nil {
		from = fmt.Sprint(x.talk.id)
	}
	return fmt.Sprintf("by %s on %s, number %d: %d bytes, returned %v (%v), handled %d times, refused %v, told %v",
		sideNames[x.sender], from, x.index, x.size, x.done, x.err, x.handled, x.refused, x.told)
}

// A way is one direction of one stream or lane.
type way struct {
	talk   *talk
	name   string
	writer int

	wrote    int
	writeErr error
	rest     int   // of the Write that has failed with it, beyond what it said it had written
	ended    bool  // Close or CloseWrite has returned nil
	endErr   error // of both
	backErr  error // how the writer's own reading ended, if by an error
	aborted  bool  // the writer has dropped the stream

	served  bool // somebody reads
	read    int
	eof     bool
	readErr error
	garbled bool
	quit    bool // the reader stopped before the end
	dropped bool // the reading side ended it all, whatever came
}

// A log is one direction of one record stream.
type log struct {
	talk   *talk
	name   string
	writer int

	wrote    uint64
	closed   bool
	closeErr error
	aborted  bool
	barrier  uint64 // the last record that a Barrier was met for

	served   bool
	read     uint64
	applied  uint64
	eof      bool
	readErr  error
	garbled  bool
	disorder bool
	quit     bool
}

func newModel(t *testing.T, seed uint64, sum *totals) *model {
	return &model{
		t: t, plan: newPlan(seed), sum: sum, began: time.Now(), stepped: make(chan struct{}), opened: make(chan struct{}),
		sessions: map[session.ID]*session.Session{}, messages: map[string]*message{},
	}
}

// note keeps what has happened for who looks at a failure.
func (m *model) note(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, fmt.Sprintf("%8.3fs %s", time.Since(m.began).Seconds(), fmt.Sprintf(format, args...)))
}

func (m *model) history() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprintf("seed %d: %v\n%s", m.plan.seed, m.plan, strings.Join(m.events, "\n"))
}

// name returns a new name of this kind.
func (m *model) name(kind string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.names++
	return fmt.Sprintf("%s-%d", kind, m.names)
}

// enter and leave frame what run waits for.
func (m *model) enter() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy++
}

func (m *model) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy--
	m.stepLocked(0)
}

// goWork starts a worker, which has a name of its own.
func (m *model) goWork(kind string, f func(name string)) {
	name := m.name(kind)
	m.enter()
	go func() {
		defer m.leave()
		f(name)
	}()
}

// step counts a step of the work.
func (m *model) step() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stepLocked(1)
}

func (m *model) stepLocked(n int) {
	m.steps += n
	close(m.stepped)
	m.stepped = make(chan struct{})
}

// pace waits until n steps of the work are done, all work is, or nothing more comes of it for a while.
func (m *model) pace(n int) {
	still := time.NewTimer(time.Second)
	defer still.Stop()
	for {
		m.mu.Lock()
		enough, stepped := m.steps >= n || m.busy == 0, m.stepped
		m.mu.Unlock()
		if enough {
			return
		}
		select {
		case <-stepped:
		case <-still.C:
			return
		}
	}
}

// awaitIdle waits for all workers and handlers, for so long, or with zero to the end. One that reads a dedicated stream whose connection
// has died silently outlives its session until the transport finds that out, which takes QUIC 30 s.
func (m *model) awaitIdle(most time.Duration) {
	var late <-chan time.Time
	if most > 0 {
		timer := time.NewTimer(most)
		defer timer.Stop()
		late = timer.C
	}
	for {
		m.mu.Lock()
		busy, stepped := m.busy, m.stepped
		m.mu.Unlock()
		if busy == 0 {
			return
		}
		select {
		case <-stepped:
		case <-late:
			m.note("%d outlive their sessions", busy)
			m.sum.late.Add(uint64(busy))
			return
		}
	}
}

func (m *model) onState(side string) func(*session.Session, session.StateChange) {
	return func(s *session.Session, c session.StateChange) {
		m.note("%s session %.4x %v %v", side, s.ID(), c.State, c.Err)
		if c.State == session.StateResumed {
			m.sum.resumes.Add(1)
		}
		if side == sideNames[accepting] && c.State == session.StateConnected {
			m.accepted(s)
		}
	}
}

// accepted takes a session of the accepting side.
func (m *model) accepted(s *session.Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sessions[s.ID()] = s
	close(m.opened)
	m.opened = make(chan struct{})
}

// connect opens a session and finds its other side.
func (m *model) connect() *talk {
	ctx, cancel := context.WithTimeout(m.t.Context(), setupPatience)
	defer cancel()
	s, err := m.road.connect(ctx)
	require.NoError(m.t, err)
	for {
		m.mu.Lock()
		there, opened := m.sessions[s.ID()], m.opened
		if there != nil {
			k := &talk{id: len(m.talks), sides: [2]*session.Session{s, there}}
			m.talks = append(m.talks, k)
			m.mu.Unlock()
			return k
		}
		m.mu.Unlock()
		select {
		case <-opened:
		case <-ctx.Done():
			require.FailNow(m.t, "the accepting side has no such session")
		}
	}
}

// run makes the run and checks it.
func (m *model) run() {
	m.a, m.b, m.fault = testnet.Proxied(m.t, m.plan.transport)
	if m.plan.bare {
		m.road = newBareRoad(m.t, m, m.a, m.b)
	} else {
		m.road = newRootRoad(m.t, m, m.a, m.b)
	}
	for side := range sideNames {
		m.road.handlers(side).SetDefaultLink(func(msg *session.Message) { m.handleMessage(side, msg) })
	}
	for range m.plan.sessions {
		m.connect()
	}
	m.fault.SetDelay(m.plan.delay)
	m.enter() // so that the work is not over before it has begun
	m.startWork()
	var breaking sync.WaitGroup
	breaking.Go(m.breakIt)
	m.leave()
	m.endIt()
	m.finish()
	breaking.Wait()
	m.awaitIdle(patience)
	_, _ = m.a.Close(), m.b.Close() // all sessions have ended: nothing can be lost any more
	m.road.done()
	m.awaitIdle(0)
	m.check()
}

// finish ends what has not ended, and asks each session what was lost.
func (m *model) finish() {
	m.note("finish after %d steps", m.stepsNow())
	var all sync.WaitGroup
	for _, k := range m.talks {
		for side, s := range k.sides {
			all.Go(func() {
				err := s.Close()
				<-s.Done()
				k.closed[side] = err
				m.note("the last Close by %s of %d: %v", sideNames[side], k.id, brief(err))
			})
		}
	}
	all.Wait()
	_ = m.road.endDialing() // has nothing but sessions without work, and those above
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m.shutdown(ctx)
	m.note("finished")
}

// shutdown ends the accepting side, and keeps what that says.
func (m *model) shutdown(ctx context.Context) {
	err := m.road.shutdown(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shutdownErr = errors.Join(m.shutdownErr, err)
	if errors.Is(err, context.DeadlineExceeded) {
		m.cutOffLocked(accepting)
	}
}

// cutOff notes that a side has cut off all its sessions.
func (m *model) cutOff(side int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cutOffLocked(side)
}

func (m *model) cutOffLocked(side int) {
	for _, k := range m.talks {
		k.cut[side] = true
	}
}

// brief is an error's text, or its beginning.
func brief(err error) string {
	text := fmt.Sprint(err)
	if len(text) > 300 {
		text = text[:300] + "..."
	}
	return text
}

func (m *model) stepsNow() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.steps
}
