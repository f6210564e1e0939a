// Package mangle turns an honest peer into a hostile one, for fuzzing: it changes what the peer sends, unit by unit, as the bytes of a
// fuzzer say. So what arrives is mostly right, and wrong where it hurts, which random bytes never are.
package mangle

import (
	"encoding/binary"
	"io"
	"slices"
	"sync"
)

// A Shape says what the units of a protocol look like: a head, which says how many bytes follow.
type Shape struct {
	Head   int               // bytes of the head
	Length func([]byte) int  // how many bytes follow a head
	Set    func([]byte, int) // writes that into a head
	Fields [][2]int          // where the head's numbers are, and how many bytes they have
	Max    int               // of Length: more is not read
}

// Read returns the next unit.
func (s *Shape) Read(r io.Reader) ([]byte, error) {
	unit := make([]byte, s.Head)
	if _, err := io.ReadFull(r, unit); err != nil {
		return nil, err
	}
	n := s.Length(unit)
	if n > s.Max {
		return nil, io.ErrUnexpectedEOF
	}
	unit = append(unit, make([]byte, n)...)
	_, err := io.ReadFull(r, unit[s.Head:])
	return unit, err
}

// The steps of a script. Each is a byte, and some have others behind them.
const (
	pass    = iota // the next units, as many as an argument says, are as they were
	drop           // a unit is lost
	double         // it comes twice
	swap           // it comes after the next one
	replay         // an earlier unit comes before it: which, an argument says
	number         // a number of the head is another: which, and how many more
	extreme        // a number of the head is one of extremes
	lie            // the head says that more or less follows than does
	flip           // a byte of what follows is another
	word           // four bytes of what follows are one of extremes
	cut            // what follows is cut short, and the head says so
	grow           // what follows is longer, and the head says so
	forge          // a unit of the script's own comes before it: its head, and what follows
	half           // the unit is cut short, and the carrier breaks
	snap           // the carrier breaks before it
	pause          // it comes later
	steps
)

// extremes are numbers at which code breaks.
var extremes = [...]uint64{
	0, 1, 2, 3, 0x7f, 0xff, 0xffff, 66560, 66561, 1 << 24, 1 << 30, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 62, 1<<64 - 1,
}

// maxPast is how many units are kept for replay.
const maxPast = 16

// A Script says what becomes of units. When it is over they pass as they are. It is safe for concurrent use.
type Script struct {
	shape *Shape

	mu    sync.Mutex
	rest  []byte
	quiet int // units to pass
	past  [][]byte
	held  []byte // waits for the next unit
}

// New returns the script that a fuzzer's bytes are.
func New(script []byte, shape *Shape) *Script { return &Script{rest: script, shape: shape} }

// A Result is what comes in the place of a unit.
type Result struct {
	Units [][]byte
	Pause int  // before them, as many units of time
	Cut   bool // the carrier breaks after them
}

// Next returns what becomes of a unit, which it may change.
func (s *Script) Next(unit []byte) (r Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.held
	s.held = nil
	if s.past = append(s.past, slices.Clone(unit)); len(s.past) > maxPast {
		s.past = s.past[1:]
	}
	switch {
	case s.quiet > 0:
		s.quiet--
		r.Units = [][]byte{unit}
	case len(s.rest) == 0:
		r.Units = [][]byte{unit}
	default:
		s.step(unit, &r)
	}
	if before != nil {
		r.Units = append(r.Units, before)
	}
	return r
}

// step makes one step of the script.
func (s *Script) step(unit []byte, r *Result) {
	r.Units = [][]byte{unit}
	switch step := s.arg() % steps; step {
	case pass:
		s.quiet = s.arg() % 32
	case drop:
		r.Units = nil
	case double:
		r.Units = append(r.Units, slices.Clone(unit))
	case swap:
		r.Units, s.held = nil, unit
	case replay:
		r.Units = [][]byte{slices.Clone(s.past[s.arg()%len(s.past)]), unit}
	case forge:
		r.Units = [][]byte{s.forged(), unit}
	case half:
		r.Units, r.Cut = [][]byte{unit[:s.arg()%len(unit)]}, true
	case snap:
		r.Units, r.Cut = nil, true
	case pause:
		r.Pause = s.arg()
	default:
		r.Units[0] = s.change(step, unit)
	}
}

// change changes a unit by one of the other steps.
func (s *Script) change(step int, unit []byte) []byte {
	head, body := unit[:s.shape.Head], unit[s.shape.Head:]
	switch step {
	case number:
		at := s.field()
		store(head[at[0]:], at[1], load(head[at[0]:], at[1])+uint64(int64(int8(s.arg()))))
	case extreme:
		at := s.field()
		store(head[at[0]:], at[1], s.extreme())
	case lie:
		s.shape.Set(head, max(0, len(body)+int(int8(s.arg()))))
	case flip:
		if i := s.arg()<<8 | s.arg(); len(body) > 0 {
			body[i%len(body)] ^= byte(1 + s.arg()%255)
		}
	case word:
		if i := s.arg(); len(body) >= 4 {
			binary.BigEndian.PutUint32(body[i%(len(body)-3):], uint32(s.extreme()))
		}
	case cut:
		unit = unit[:s.shape.Head+s.arg()%(len(body)+1)]
		s.shape.Set(unit, len(unit)-s.shape.Head)
	case grow:
		unit = append(unit, make([]byte, s.arg())...)
		s.shape.Set(unit, len(unit)-s.shape.Head)
	}
	return unit
}

// forged returns a unit of the script's own.
func (s *Script) forged() []byte {
	unit := make([]byte, s.shape.Head, s.shape.Head+256)
	n := s.arg() % 64
	for i := range unit {
		unit[i] = byte(s.arg())
	}
	for range n {
		unit = append(unit, byte(s.arg()))
	}
	s.shape.Set(unit, n)
	return unit
}

// arg returns the next byte of the script; 0 when it is over.
func (s *Script) arg() int {
	if len(s.rest) == 0 {
		return 0
	}
	b := s.rest[0]
	s.rest = s.rest[1:]
	return int(b)
}

func (s *Script) field() [2]int { return s.shape.Fields[s.arg()%len(s.shape.Fields)] }

func (s *Script) extreme() uint64 { return extremes[s.arg()%len(extremes)] }

// load returns the number of size bytes at the beginning of b.
func load(b []byte, size int) (n uint64) {
	for _, c := range b[:size] {
		n = n<<8 | uint64(c)
	}
	return n
}

// store writes the low size bytes of n to the beginning of b.
func store(b []byte, size int, n uint64) {
	for i := range size {
		b[size-1-i] = byte(n >> (8 * i))
	}
}
