package corpus

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/session"
)

var write = flag.Bool("corpus.write", false, "write the seeds anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	maxSeeds = 6       // of a target
	maxSeed  = 3 << 10 // bytes of one
)

// seeds are the arguments of fuzz targets, by package and target.
type seeds map[string][][]any

// add adds a seed, unless there are enough, it is too long, or one of this kind is there.
func (s seeds) add(target string, kind byte, args ...any) {
	size := 0
	for _, a := range args {
		if b, ok := a.([]byte); ok {
			size += len(b)
		}
	}
	key := fmt.Sprintf("%s#%d", target, kind)
	if size > maxSeed || len(s[target]) >= maxSeeds || s[key] != nil {
		return
	}
	s[key] = [][]any{}
	s[target] = append(s[target], cloned(args))
}

// cloned returns the arguments with bytes of their own.
func cloned(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		if b, ok := a.([]byte); ok {
			a = bytes.Clone(b)
		}
		out[i] = a
	}
	return out
}

// made returns seeds of all targets that see what passes between two sides.
func made(t *testing.T) seeds {
	s := seeds{}
	for _, c := range carriersOf(t, session.Config{ResumeWindow: -1}, talkOfAll) {
		s.carrier(t, c, false)
	}
	for _, c := range carriersOf(t, session.Config{}, talkOverCuts) {
		s.carrier(t, c, true)
	}
	return s
}

// carrier adds what was said on a carrier: hellos, and then the frames or segments of a session, or the bytes of a stream.
func (s seeds) carrier(t *testing.T, c carrier, segments bool) {
	var role frame.Role
	var rest [2][]byte
	for side, said := range c {
		n := 2 + int(binary.BigEndian.Uint16(said))
		s.add("internal/frame FuzzHello", byte(len(s["internal/frame FuzzHello"])), said[2:n])
		h, _, err := frame.ConsumeHello(said[2:n])
		require.NoError(t, err)
		role = max(role, h.Role)
		rest[side] = said[n:]
	}
	switch {
	case role == frame.RoleStream && segments:
		s.resumable(rest)
	case role == frame.RoleStream:
		s.dedicated(rest)
	case segments:
		s.segments(rest)
	default:
		s.frames(t, rest)
	}
}

// segments adds what two sides of a session say that outlives its carriers.
func (s seeds) segments(said [2][]byte) {
	s.add("internal/flow FuzzFlowRead", byte(len(s["internal/flow FuzzFlowRead"])), said[0], said[1])
	for _, b := range said {
		for len(b) >= 12 {
			s.add("internal/flow FuzzSegment", b[0], b[:12])
			b = b[min(len(b), 12+int(binary.BigEndian.Uint32(b)&0xffffff)):]
		}
	}
}

// resumable adds what two sides of a stream say that outlives its carriers: hellos of 44 bytes, and segments.
func (s seeds) resumable(said [2][]byte) {
	const hello = 44
	if len(said[0]) < hello || len(said[1]) < hello {
		return
	}
	s.add("resume FuzzHello", said[0][5], said[0][:hello])
	s.add("resume FuzzHello", said[1][5], said[1][:hello])
	s.add("resume FuzzConnRead", byte(len(s["resume FuzzConnRead"])), said[0][hello:], said[1][hello:])
}

// frames adds the frames of a session, and what its streams carry.
func (s seeds) frames(t *testing.T, said [2][]byte) {
	streams := map[uint64]*[2][]byte{}
	names := map[uint64]string{}
	for side, b := range said {
		s.add("internal/frame FuzzReader", byte(side), b[:min(len(b), 2000)], uint16(1), uint16(64))
		if side == 0 {
			s.add("session FuzzSession", 0, append([]byte{1}, b[:min(len(b), 2000)]...)) // its mode for frames to a side that has accepted
		}
		for len(b) > 0 {
			h, n, err := frame.ConsumeHeader(b)
			require.NoError(t, err)
			whole, p := b[:n+h.Length], b[n:n+h.Length]
			b = b[len(whole):]
			s.frame(h, whole, p)
			switch h.Type {
			case frame.TypeStreamOpen:
				names[h.ID], streams[h.ID] = string(p), new([2][]byte)
			case frame.TypeStreamData:
				if st := streams[h.ID]; st != nil {
					st[side] = append(st[side], p...)
				}
			}
		}
	}
	for id, name := range names {
		switch said := streams[id]; name {
		case "records":
			s.records(said)
		case "bulk":
			s.bulk([][]byte{said[0]})
			s.bulk([][]byte{said[1]})
		case "transfer":
			s.control(said[0])
			s.control(said[1])
		}
	}
}

// frame adds one frame.
func (s seeds) frame(h frame.Header, whole, payload []byte) {
	s.add("internal/frame FuzzHeader", byte(h.Type), whole)
	switch h.Type {
	case frame.TypeRequest, frame.TypeResponse, frame.TypeMessage:
		s.add("internal/frame FuzzStart", byte(h.Type)<<4|byte(h.Flags), byte(h.Type-1), byte(h.Flags), payload)
		if h.Flags&frame.FlagCompressed != 0 {
			if start, body, err := frame.ConsumeStart(payload, h.Type, h.Flags, nil); err == nil {
				s.add("internal/frame FuzzDecompress", byte(h.Type), body, uint32(start.Raw))
			}
		}
	case frame.TypeError, frame.TypeStreamReset, frame.TypeStreamStop, frame.TypeGoAway, frame.TypeEnd:
		s.add("internal/frame FuzzFailure", byte(h.Type), payload)
	case frame.TypeStreamCredit, frame.TypeSessionCredit, frame.TypeSessionReturn, frame.TypeStreamTaken, frame.TypeStreamEnd:
		s.add("internal/frame FuzzNumbers", byte(h.Type), payload)
	}
}

// records adds the hello and frames of a record stream.
func (s seeds) records(said *[2][]byte) {
	const hello = 80
	const head = 8
	for side, b := range said {
		if len(b) < hello {
			continue
		}
		s.add("record FuzzHello", byte(side), b[:hello])
		for rest := b[hello:]; len(rest) >= head; {
			n := min(len(rest), head+int(binary.BigEndian.Uint32(rest[4:])))
			s.add("record FuzzHeader", rest[0], rest[:n])
			rest = rest[n:]
		}
	}
	if len(said[0]) > hello && len(said[1]) > hello {
		s.add("record FuzzStreamInput", 0, said[0][hello:], said[1][hello:], []byte("rrawwb"))
	}
}

// bulk adds the hello and blocks of strands.
func (s seeds) bulk(strands [][]byte) {
	const hello, head = 28, 20
	var blocks [3][]byte
	for i, b := range strands {
		if len(b) < hello || !bytes.HasPrefix(b, []byte{0xF5, 'p', 'l', 'b'}) {
			continue
		}
		s.add("bulk FuzzHello", b[5], b[:hello])
		blocks[i%3] = b[hello:]
		for rest := b[hello:]; len(rest) >= head; {
			n := min(len(rest), head+int(binary.BigEndian.Uint32(rest[4:])))
			s.add("bulk FuzzBlock", rest[0], rest[:n])
			rest = rest[n:]
		}
	}
	if len(blocks[0]) > 0 {
		s.add("bulk FuzzStrand", byte(len(strands)), blocks[0], blocks[1], blocks[2], true)
	}
}

// control adds the frames of the control stream of a transfer.
func (s seeds) control(b []byte) {
	const head, manifest = 8, 4
	s.add("transfer/internal/wire FuzzFrame", 0xFF, b)
	for len(b) >= head {
		n := min(len(b), head+int(binary.BigEndian.Uint32(b[4:])))
		s.add("transfer/internal/wire FuzzFrame", b[0], b[:n])
		if b[0] == manifest {
			s.add("transfer/internal/manifest FuzzBatch", byte(len(s["transfer/internal/manifest FuzzBatch"])), b[head:n])
		}
		b = b[n:]
	}
}

// dedicated adds what passes on a dedicated stream: a strand of a bulk lane, or a data lane of a transfer on one.
func (s seeds) dedicated(said [2][]byte) {
	s.bulk([][]byte{said[0]})
	s.bulk([][]byte{said[1]})
	const hello, lane, head = 28, 24, 20
	for _, b := range said {
		if len(b) > hello && bytes.HasPrefix(b[hello:], []byte{0xF5, 'p', 'l', 'y'}) && len(b) >= hello+lane+head {
			s.add("transfer/internal/wire FuzzData", b[hello+lane], b[hello:hello+lane+head])
		}
	}
}

// text is a seed as a file of testdata/fuzz has it.
func text(args []any) string {
	var b strings.Builder
	b.WriteString("go test fuzz v1\n")
	for _, a := range args {
		switch a := a.(type) {
		case []byte:
			fmt.Fprintf(&b, "[]byte(%q)\n", a)
		case byte:
			fmt.Fprintf(&b, "byte(%q)\n", rune(a))
		default:
			fmt.Fprintf(&b, "%T(%v)\n", a, a)
		}
	}
	return b.String()
}

// Every target that sees what passes between two sides has seeds of it, in their repository and in what two sides say today.
func TestTargetsHaveSeedsOfRealTraffic(t *testing.T) {
	all := made(t)
	for _, target := range []string{
		"internal/frame FuzzHello", "internal/frame FuzzHeader", "internal/frame FuzzReader", "internal/frame FuzzStart",
		"internal/frame FuzzFailure", "internal/frame FuzzNumbers", "internal/frame FuzzDecompress", "internal/flow FuzzFlowRead",
		"internal/flow FuzzSegment", "resume FuzzHello", "resume FuzzConnRead", "session FuzzSession", "record FuzzHello", "record FuzzHeader",
		"record FuzzStreamInput", "bulk FuzzHello", "bulk FuzzBlock", "bulk FuzzStrand", "transfer/internal/wire FuzzFrame",
		"transfer/internal/wire FuzzData", "transfer/internal/manifest FuzzBatch",
	} {
		require.NotEmpty(t, all[target], target)
		pkg, name, _ := strings.Cut(target, " ")
		dir := filepath.Join("..", "..", "..", pkg, "testdata", "fuzz", name)
		if *write {
			store(t, dir, all[target])
		}
		kept, err := filepath.Glob(filepath.Join(dir, "real-*"))
		require.NoError(t, err)
		require.NotEmpty(t, kept, "%s: write them with -corpus.write", dir)
	}
}

// store replaces the seeds of a target.
func store(t *testing.T, dir string, all [][]any) {
	old, err := filepath.Glob(filepath.Join(dir, "real-*"))
	require.NoError(t, err)
	for _, path := range old {
		require.NoError(t, os.Remove(path))
	}
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for i, args := range all {
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("real-%d", i+1)), []byte(text(args)), 0o644))
	}
}
