package chaos

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/peerlane/peerlane/internal/test/testnet"
)

// A dice decides for one goroutine.
type dice struct{ *rand.Rand }

// newDice returns the dice of a seed for one purpose.
func newDice(seed uint64, what string) dice { return dice{rand.New(rand.NewPCG(seed, keyOf(what)))} }

// oneIn is true once in n times.
func (d dice) oneIn(n int) bool { return d.IntN(n) == 0 }

// pause sleeps for up to so many milliseconds, mostly not at all.
func (d dice) pause(most int) {
	if n := d.IntN(3*most+1) - 2*most; n > 0 {
		time.Sleep(time.Duration(n) * time.Millisecond)
	}
}

// keyOf returns what tells the bytes of one lane from those of others.
func keyOf(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	return h.Sum64()
}

// byteAt returns byte i of what is written under a key.
func byteAt(key uint64, i int) byte {
	return byte(key>>(8*(i&7))) ^ byte(i>>3) ^ byte(i>>11) ^ byte(i>>19)
}

// bytesOf returns n bytes under a name's key, from the first on.
func bytesOf(name string, n int) []byte {
	key, p := keyOf(name), make([]byte, n)
	for i := range p {
		p[i] = byteAt(key, i)
	}
	return p
}

// A plan is what a seed decides before anything runs.
type plan struct {
	seed      uint64
	transport testnet.Transport
	sealed    bool
	bare      bool // sessions on conns of Dial and Listen, not of Client and Server: their StreamWindow can be set
	keeper    bool // the first session is a Keeper's
	mortal    bool // sessions end with their carriers
	compress  bool

	streamWindow, replayWindow, messageWindow int
	heartbeat, resumeWindow                   time.Duration
	maxRequests                               int // the server drains sessions after so many; 0: never
	sessions                                  int
	delay                                     time.Duration
}

// newPlan returns the plan of a seed. Four seeds in a row are TCP and QUIC, plain and sealed.
func newPlan(seed uint64) plan {
	d := newDice(seed, "plan")
	window := func() int { return 4 << 10 << d.IntN(13) } // to 16 MiB
	p := plan{
		seed: seed, transport: testnet.QUIC, sealed: seed&2 != 0, bare: d.oneIn(3), mortal: d.oneIn(4), compress: d.oneIn(2),
		streamWindow: window(), replayWindow: window(), messageWindow: window(),
		heartbeat: time.Duration(200+d.IntN(800)) * time.Millisecond, resumeWindow: time.Duration(4+d.IntN(20)) * time.Second,
		sessions: 1 + d.IntN(3)/2, delay: time.Duration(d.IntN(6)) * time.Millisecond,
	}
	if seed&1 != 0 {
		p.transport = []testnet.Transport{testnet.TCPTLS, testnet.TCPNoise}[d.IntN(2)]
	}
	if p.mortal {
		p.resumeWindow = -1
	}
	if d.oneIn(5) {
		p.maxRequests = 5 + d.IntN(40)
	}
	if p.bare {
		return p
	}
	p.streamWindow, p.keeper = 0, d.oneIn(3)
	return p
}

// unit is about how many bytes are written at once: less where only little can be on its way.
func (p plan) unit() int { return min(max(p.replayWindow/2, 3000), 20_000) }

func (p plan) String() string {
	return fmt.Sprintf("%s, sealed %v, bare %v, keeper %v, compressed %v, windows of streams %d, replay %d, messages %d, "+
		"heartbeat %v, resume window %v, drained after %d requests, %d sessions, delay %v", p.transport, p.sealed, p.bare, p.keeper, p.compress,
		p.streamWindow, p.replayWindow, p.messageWindow, p.heartbeat, p.resumeWindow, p.maxRequests, p.sessions, p.delay)
}
