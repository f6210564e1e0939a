package staging

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

func requireIs(t testing.TB, code fault.Code, err error) {
	t.Helper()
	var e *fault.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, code, e.Code, "%v", err)
	require.NotEmpty(t, e.Error())
}

// codeOf returns the code of an *Error, and "" of none.
func codeOf(err error) fault.Code {
	var e *fault.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func createMem(t testing.TB, d *memDisk, o Options) *Staging {
	t.Helper()
	o.Rules = testRules
	s, err := Create(d, testID, tree(), &o)
	require.NoError(t, err)
	return s
}

func TestWhatIsOutOfOrderIsRefused(t *testing.T) {
	d := newTestDisk(1, false)
	s := createMem(t, d, Options{Sync: SyncEach})
	for _, err := range []error{
		s.WriteAt(99, []byte("x"), 0),
		s.WriteAt(1, []byte("x"), 0), // a folder
		s.WriteAt(2, []byte("x"), -1),
		s.WriteAt(2, []byte("x"), 100),
		s.WriteAt(2, []byte("x"), 1<<62),
		s.WriteZeros(2, 99, 2),
		s.WriteZeros(2, 1, -1),
		s.WriteZeros(2, 1<<62, 1<<62),
		publish(s, 2),
		publish(s, 99),
		s.Finish(),
	} {
		requireIs(t, fault.CodeProtocol, err)
	}
	require.NoError(t, s.WriteAt(2, []byte("x"), 10))
	requireIs(t, fault.CodeProtocol, s.WriteAt(2, []byte("xyz"), 9))
	require.Equal(t, []Range{{10, 11}}, s.Have(2))
	require.NoError(t, s.Close())
	for _, err := range []error{s.WriteAt(2, []byte("x"), 0), s.Sync(), s.Finish(), publish(s, 2), s.Reset(2)} {
		require.ErrorIs(t, err, os.ErrClosed)
	}
	require.NoError(t, s.Close())
	_, err := Create(d, testID, tree(), &Options{Rules: testRules})
	requireIs(t, fault.CodeExists, err)
	for _, id := range []string{"", "abc", "../a", "ABCD", "0123/456"} {
		_, err := Create(d, id, nil, nil)
		requireIs(t, fault.CodeProtocol, err)
		requireIs(t, fault.CodeProtocol, Discard(d, id))
	}
	_, err = Create(d, "abcd", []manifest.Entry{{ID: 1, Kind: manifest.KindFile, Path: "../victim"}}, nil)
	requireIs(t, fault.CodePathUnsafe, err)
	require.Nil(t, d.names[".xfer-abcd"], "a manifest that is not taken leaves nothing")
	for _, o := range []Options{{Sync: 3}, {OpenParts: -1}} {
		_, err := Open(d, testID, &o)
		requireIs(t, fault.CodeProtocol, err)
	}
}

// Claim: transfer.CodeNoSpace
func TestAFullDiskKeepsTheStateAndTheSameCallMayBeRepeated(t *testing.T) {
	d := newTestDisk(1, false)
	s := createMem(t, d, Options{Sync: SyncEach})
	require.NoError(t, s.WriteAt(2, content(2, 100)[:50], 0))
	for range 20 { // whatever the call has come to, it fails there
		d.fail[d.ops+1] = syscall.ENOSPC
		err := s.WriteAt(2, content(2, 100)[50:], 50)
		if err == nil {
			break
		}
		requireIs(t, fault.CodeNoSpace, err)
		require.Contains(t, s.Have(2), Range{0, 50})
	}
	d.fail = map[int]error{}
	if len(s.Missing(2)) > 0 {
		require.NoError(t, s.WriteAt(2, content(2, 100)[50:], 50))
	}
	require.NoError(t, publish(s, 2))
	require.Equal(t, content(2, 100), d.names["d/a"].data)
}

// Claim: transfer.CodeIO
func TestWhatASyncLosesIsMissingAgain(t *testing.T) {
	d := newTestDisk(1, false)
	s := createMem(t, d, Options{})
	require.NoError(t, s.WriteAt(2, content(2, 100), 0))
	require.NoError(t, s.WriteAt(5, content(5, 64), 0))
	d.fail[d.ops+1] = syscall.EIO
	requireIs(t, fault.CodeIO, s.Sync())
	require.Equal(t, []Range{{0, 100}}, s.Missing(2))
	require.NoError(t, s.Sync(), "which must not take it for durable")
	require.Empty(t, s.Have(2))
	require.Equal(t, []Range{{0, 64}}, s.Have(5), "the others are not held up")
}

// Any calls in any order, with failures and power cuts anywhere: what Have says is what was written last.
func TestHaveIsTrueWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDisk(rapid.Uint64().Draw(t, "seed"))
		d.noPunch = rapid.Bool().Draw(t, "no punch")
		o := &Options{Rules: testRules, OpenParts: rapid.IntRange(1, 3).Draw(t, "open")}
		s, err := Create(d, testID, tree(), o)
		require.NoError(t, err)
		round := map[uint32]byte{} // each Reset begins another: its bytes differ from all before
		for range rapid.IntRange(1, 40).Draw(t, "calls") {
			id := rapid.SampledFrom([]uint32{2, 5}).Draw(t, "id")
			at := 16 * rapid.Int64Range(0, 3).Draw(t, "piece")
			switch rapid.IntRange(0, 9).Draw(t, "call") {
			case 0:
				require.NoError(t, s.Reset(id))
				round[id]++
			case 1:
				d.fail[d.ops+rapid.IntRange(1, 6).Draw(t, "in")] = rapid.SampledFrom([]error{syscall.EIO, syscall.ENOSPC}).Draw(t, "error")
				_ = s.Sync()
			case 2:
				_ = s.WriteZeros(id, at, 8)
				_ = s.WriteAt(id, piece(round[id], at)[8:], at+8)
			case 3:
				d.cutAt = d.ops + rapid.IntRange(1, 6).Draw(t, "cut in")
				_ = s.WriteAt(id, piece(round[id], at), at)
				_ = s.Sync()
				d.cutAt = max(1, min(d.cutAt, d.ops))
				_ = s.Close()
				d = d.cut()
				s, err = Open(d, testID, o)
				require.NoError(t, err)
			default:
				_ = s.WriteAt(id, piece(round[id], at), at)
			}
			d.fail = map[int]error{}
			if s.Dirty() >= 48 {
				_ = s.Sync()
			}
			requireRound(t, s, round)
		}
	})
}

func piece(round byte, at int64) []byte {
	b := make([]byte, 16)
	for i := range b {
		b[i] = 1 + round*4 + byte(at/16)
	}
	return b
}

// requireRound sees that what is had is of the last round, or of a piece's first half zero.
func requireRound(t *rapid.T, s *Staging, round map[uint32]byte) {
	for i := range s.parts {
		p, id := &s.parts[i], s.parts[i].entry.ID
		for _, r := range s.Have(id) {
			b := make([]byte, r.To-r.From)
			_, err := s.ReadAt(id, b, r.From)
			if e := (*fault.Error)(nil); errors.As(err, &e) {
				continue
			}
			for i, got := range b {
				at := (r.From + int64(i)) / 16 * 16
				want := piece(round[id], at)[0]
				if half := (r.From+int64(i))%16 < 8; half && got == 0 {
					continue
				}
				require.Equal(t, want, got, "%s byte %d of round %d, had %v", p.entry.Path, r.From+int64(i), round[id], s.Have(id))
			}
		}
	}
}
