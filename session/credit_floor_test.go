package session

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
)

// floorModel is one direction of the streams of a session, with what is on its way: a sender with its purse, and a receiver.
type floorModel struct {
	rt    *rapid.T
	in    allowance
	purse purse
	ways  []*floorWay
	there []func() // on their way to the receiver
	back  []func() // and to the sender
	now   time.Duration
}

type floorWay struct {
	share    share
	underWay int // sent, and not granted again for the stream
	buffered int
	owed     int // read, and not granted again for the stream
}

func (m *floorModel) open() {
	if m.in.reserve(m.now).Code != codes.OK {
		return
	}
	w := &floorWay{}
	m.ways = append(m.ways, w)
	m.purse.keep(&w.share, true, 0)
	m.in.begin(m.now)
	m.tell()
}

// tell sends the credit that is due.
func (m *floorModel) tell() {
	if n := m.in.due; n > 0 {
		m.in.due = 0
		m.back = append(m.back, func() { m.purse.add(uint32(n)) })
	}
}

// send sends up to n bytes of a stream.
func (m *floorModel) send(w *floorWay, n int) {
	if n = min(n, m.purse.room(&w.share)); !w.share.sends || n == 0 {
		return
	}
	m.purse.spend(n)
	w.underWay += n
	m.purse.keep(&w.share, true, uint64(w.underWay))
	m.there = append(m.there, func() {
		if !m.in.arrive(int64(n), m.now) {
			m.rt.Fatalf("%d bytes are beyond the credit", n)
		}
		w.buffered += n
		m.tell()
	})
}

// read reads up to n bytes of a stream. If all has been read, it waits for more.
func (m *floorModel) read(w *floorWay, n int) {
	n = min(n, w.buffered)
	w.buffered -= n
	w.owed += n
	if granted := w.owed; granted >= min(mostGrant, int(m.in.worth.Load())) || w.buffered == 0 && granted >= leastGrant {
		w.owed = 0
		m.back = append(m.back, func() {
			w.underWay -= granted
			m.purse.keep(&w.share, true, uint64(w.underWay))
		})
		m.in.owe(granted)
		m.in.settle(m.now)
		m.tell()
	}
}

// ask has the sender return what it does not need.
func (m *floorModel) ask() {
	m.back = append(m.back, func() {
		if n := m.purse.takeIdle(); n > 0 {
			m.there = append(m.there, func() {
				if !m.in.back(n, m.now) {
					m.rt.Fatalf("%d bytes come back that were not granted", n)
				}
				m.tell()
			})
		}
	})
}

// arrive makes the first thing of a direction arrive.
func arrive(queue *[]func()) {
	if len(*queue) > 0 {
		first := (*queue)[0]
		*queue = (*queue)[1:]
		first()
	}
}

// settle makes all arrive that is on its way. All but one stream send as much as they can meanwhile.
func (m *floorModel) settle(but *floorWay) {
	for len(m.there)+len(m.back) > 0 {
		for _, w := range m.ways {
			if w != but {
				m.send(w, 1<<20)
			}
		}
		arrive(&m.back)
		arrive(&m.there)
	}
}

// Whatever is sent, read and asked for in whatever order, and however much memory others want: a stream that is read moves, even if no other
// is read any more and has taken all that it can get.
func TestAStreamThatIsReadAlwaysMoves(t *testing.T) {
	for range 20 {
		rapid.Check(t, checkThatItMoves)
	}
}

func checkThatItMoves(rt *rapid.T) {
	quota := &Quota{MaxBytes: 1 << 20}
	m := &floorModel{rt: rt}
	m.in.part, m.in.window = quota.Hold("one", ""), 512<<10
	others := quota.Hold("another", "")
	held := 0
	for range rapid.IntRange(1, 6).Draw(rt, "streams") {
		m.open()
	}
	way := func() *floorWay { return m.ways[rapid.IntRange(0, len(m.ways)-1).Draw(rt, "stream")] }
	for range rapid.IntRange(1, 400).Draw(rt, "steps") {
		n := rapid.SampledFrom([]int{1, 1000, 5000, 20 << 10, 100 << 10}).Draw(rt, "n")
		m.now += 10 * time.Millisecond
		switch rapid.IntRange(0, 9).Draw(rt, "step") {
		case 0, 1, 2:
			m.send(way(), n)
		case 3, 4:
			arrive(&m.there)
		case 5:
			arrive(&m.back)
		case 6, 7:
			m.read(way(), n)
		case 8:
			if rapid.Bool().Draw(rt, "more") && others.take(fair.Bytes, n).Code == codes.OK {
				held += n
			} else if rapid.Bool().Draw(rt, "less") {
				others.release(fair.Bytes, held)
				held = 0
			}
		case 9:
			m.ask()
		}
	}
	read, moved := way(), 0
	for range 300 { // only one is read from now on, and the others send as much as they can
		m.settle(read)
		before := read.underWay
		m.send(read, 1000)
		moved += read.underWay - before
		m.settle(read)
		m.read(read, 1<<20)
	}
	m.settle(read)
	if moved < 100*1000 {
		rt.Fatalf("%d bytes moved: %d left, %d kept, unused %d, unread %d, spare %d, owed %d, floor %d: %+v", moved, m.purse.left, m.purse.kept,
			m.in.unused, m.in.unread, m.in.spare, m.in.owed.Load(), m.in.floor(), *read)
	}
	if own := quota.Snapshot().Bytes - int64(held); own != m.in.total()+int64(len(m.ways))*bufferCost {
		rt.Fatalf("%d bytes are reserved, for %+v", own, m.in.total())
	}
	if m.purse.left != m.in.unused || m.purse.left < m.purse.kept {
		rt.Fatalf("%d bytes left of %d, %d kept", m.purse.left, m.in.unused, m.purse.kept)
	}
	m.in.end()
}

// A peer that returns more than it should, because it does not know yet of a stream that is being opened, has the floor again.
func TestWhatComesBackOfTheFloorIsGrantedAgain(t *testing.T) {
	quota := &Quota{MaxBytes: 1 << 20}
	in := allowance{part: quota.Hold("one", ""), window: 512 << 10}
	for range 2 {
		require.Equal(t, codes.OK, in.reserve(0).Code)
		in.begin(0)
	}
	all := in.unused
	in.due = 0
	require.True(t, in.back(all, 0))
	require.Equal(t, in.floor(), in.unused)
	require.Equal(t, in.floor(), in.due)
	require.False(t, in.back(1, 0), "it does not know of it yet")
	in.due = 0
	in.closed(0)
	in.closed(0)
	require.True(t, in.back(in.unused, 0))
	require.Equal(t, int64(2*bufferCost), quota.Snapshot().Bytes)
	in.leaveBuffer(true)
	in.leaveBuffer(true)
	require.Zero(t, quota.Snapshot().Bytes)
}

// Ten thousand sessions with a stream each have room in the memory of a server, whichever come first.
func TestTenThousandSessionsHaveCredit(t *testing.T) {
	quota := &Quota{MaxBytes: 1 << 30}
	all := make([]allowance, 10_000)
	for i := range all {
		name := strconv.Itoa(i % 1000)
		all[i].part, all[i].window = quota.Hold(name, "of "+name), 512<<10
		require.Equal(t, codes.OK, all[i].reserve(0).Code, "%d", i)
		all[i].begin(0)
		require.GreaterOrEqual(t, all[i].unused, int64(frame.LeastCredit+frame.StreamShare))
	}
	require.LessOrEqual(t, quota.Snapshot().Bytes, int64(1<<30))
}
