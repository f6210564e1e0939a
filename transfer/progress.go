package transfer

import (
	"sync"
	"sync/atomic"
	"time"
)

// Phase says what a transfer is doing.
type Phase string

// The phases, in the order in which they come. Waiting and Paused may come at any time.
const (
	PhaseStart   Phase = "start"   // the two sides find each other
	PhaseList    Phase = "list"    // the manifest crosses, and is compared with what is there
	PhaseData    Phase = "data"    // files cross
	PhaseFinish  Phase = "finish"  // what has come is synced and named
	PhaseDone    Phase = "done"    // both sides know that it is complete
	PhaseFailed  Phase = "failed"  // see Err
	PhaseWaiting Phase = "waiting" // the peer is lost, and looked for
	PhasePaused  Phase = "paused"  // the receiver's disk is full: it goes on when there is room
)

// Progress is a transfer as it stands. Bytes are those of files.
type Progress struct {
	Phase     Phase
	Files     int           // with a content: folders and links do not count
	FilesDone int           // in their place at the receiver
	FilesBad  int           // failed
	Bytes     int64         // of all files
	Verified  int64         // have come, and are what was said; with what was there already
	Durable   int64         // of those, on the receiver's disk, so that no power cut takes them away
	Resumed   int64         // of those, were there from an earlier run, or as files that are the same
	Crossed   int64         // bytes on the data lanes, with their frames and with what crossed twice, before compression
	Rate      float64       // bytes per second over the last second
	RateSlow  float64       // bytes per second over the last ten
	ETA       time.Duration // what RateSlow says is left; 0 if it says nothing
	Lanes     int           // data lanes that are open
	Stalls    int           // times that nothing came for StallAfter, or for longer
	Losses    int           // times that a connection was lost and looked for again
	Bad       int           // pieces that were not what was said
}

// meter counts for Progress.
type meter struct {
	files, filesDone, filesBad atomic.Int64
	bytes, verified, durable   atomic.Int64
	resumed, crossed           atomic.Int64
	lanes, stalls, losses, bad atomic.Int64

	mu      sync.Mutex
	phase   Phase
	met     time.Time // when the two sides had found each other; zero: not yet
	paused  bool
	samples []sample // of verified, in the order of time: over the last slowSpan
}

// sample is how much had come at a time.
type sample struct {
	at       time.Time
	verified int64
}

const (
	fastSpan   = time.Second
	slowSpan   = 10 * time.Second
	sampleSpan = 100 * time.Millisecond
)

// forget takes back what has come of a file, some of which was there already.
func (m *meter) forget(bytes, resumed int64) {
	m.resumed.Add(-resumed)
	m.durable.Store(min(m.durable.Load(), m.verified.Add(-bytes)))
}

func newMeter() *meter { return &meter{phase: PhaseStart} }

func (m *meter) setPhase(p Phase) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p == PhaseList && m.met.IsZero() {
		m.met = time.Now()
	}
	if m.phase != PhaseDone && m.phase != PhaseFailed {
		m.phase = p
	}
}

// since returns when the two sides had found each other, or began if they have not.
func (m *meter) since(began time.Time) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.met.IsZero() {
		return began
	}
	return m.met
}

// found ends the phase of waiting for the peer.
func (m *meter) found() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.phase == PhaseWaiting {
		m.phase = PhaseData
	}
}

// setPaused says whether the receiver takes no data, and returns whether that is new.
func (m *meter) setPaused(paused bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := m.paused != paused
	m.paused = paused
	return changed
}

func (m *meter) isPaused() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.paused
}

// tick takes a sample. Someone calls it every fastSpan or more often.
func (m *meter) tick(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tickLocked(now)
}

func (m *meter) tickLocked(now time.Time) {
	if n := len(m.samples); n > 0 && now.Sub(m.samples[n-1].at) < sampleSpan {
		return
	}
	m.samples = append(m.samples, sample{now, m.verified.Load() - m.resumed.Load()})
	for len(m.samples) > 2 && now.Sub(m.samples[1].at) >= slowSpan {
		m.samples = m.samples[1:]
	}
}

// rateLocked returns bytes per second over about the last span.
func (m *meter) rateLocked(span time.Duration) float64 {
	if len(m.samples) < 2 {
		return 0
	}
	last := m.samples[len(m.samples)-1]
	from := len(m.samples) - 2
	for from > 0 && last.at.Sub(m.samples[from].at) < span {
		from--
	}
	over := last.at.Sub(m.samples[from].at).Seconds()
	if over <= 0 {
		return 0
	}
	return max(0, float64(last.verified-m.samples[from].verified)/over)
}

func (m *meter) progress(now time.Time) Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tickLocked(now)
	p := Progress{
		Phase: m.phase, Files: int(m.files.Load()), FilesDone: int(m.filesDone.Load()), FilesBad: int(m.filesBad.Load()),
		Bytes: m.bytes.Load(), Verified: m.verified.Load(), Durable: m.durable.Load(), Resumed: m.resumed.Load(), Crossed: m.crossed.Load(),
		Rate: m.rateLocked(fastSpan), RateSlow: m.rateLocked(slowSpan), Lanes: int(m.lanes.Load()),
		Stalls: int(m.stalls.Load()), Losses: int(m.losses.Load()), Bad: int(m.bad.Load()),
	}
	if left := p.Bytes - p.Verified; left > 0 && p.RateSlow >= 1 {
		p.ETA = time.Duration(float64(left) / p.RateSlow * float64(time.Second))
	}
	if m.paused && p.Phase != PhaseDone && p.Phase != PhaseFailed {
		p.Phase = PhasePaused
	}
	return p
}
