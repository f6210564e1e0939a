package staging

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// situation is how the file 2, of 100 bytes, stands before a call.
type situation struct {
	make func(t *testing.T, s *Staging)

	have, missing []Range
	isPublished   bool
	isEmpty       bool
	dirty         int64
	stage         stage

	// The codes of calls, "" for success.
	fill, again, file, publish, adopt, layer, read fault.Code
}

const (
	ok     fault.Code = ""
	refuse            = fault.CodeProtocol
)

func situations() map[string]situation {
	data := content(2, 100)
	return map[string]situation{
		"nothing": {
			make: func(*testing.T, *Staging) {}, missing: []Range{{0, 100}}, isEmpty: true, stage: stageNone, publish: refuse, read: refuse,
		},
		"some of it written": {
			make:    func(t *testing.T, s *Staging) { require.NoError(t, s.WriteAt(2, data[:50], 0)) },
			missing: []Range{{50, 100}}, dirty: 50, stage: stagePieces, again: refuse, file: refuse, publish: refuse,
		},
		"some of it synced": {
			make: func(t *testing.T, s *Staging) {
				require.NoError(t, s.WriteAt(2, data[:50], 0))
				require.NoError(t, s.Sync())
			},
			have: []Range{{0, 50}}, missing: []Range{{50, 100}}, stage: stagePieces, again: refuse, file: refuse, publish: refuse,
		},
		"all pieces written": {
			make:  func(t *testing.T, s *Staging) { require.NoError(t, s.WriteAt(2, data, 0)) },
			dirty: 100, stage: stagePieces, fill: refuse, again: refuse, file: refuse,
		},
		"some of it lost": {
			make: func(t *testing.T, s *Staging) {
				require.NoError(t, s.WriteAt(2, data[:50], 0))
				d := s.fs.(*memDisk)
				d.fail[d.ops+1] = syscall.EIO
				require.Error(t, s.Sync())
			},
			missing: []Range{{0, 100}}, isEmpty: true, stage: stagePieces, file: refuse, publish: refuse,
		},
		"written as a whole": {
			make:  func(t *testing.T, s *Staging) { require.NoError(t, s.WriteFile(2, data)) },
			dirty: 100, stage: stageWhole, fill: refuse, again: refuse, file: refuse, read: refuse,
		},
		"written as a whole, and synced": {
			make: func(t *testing.T, s *Staging) {
				require.NoError(t, s.WriteFile(2, data))
				require.NoError(t, s.Sync())
			},
			stage: stageFlushed, fill: refuse, again: refuse, file: refuse, read: refuse,
		},
		"written as a whole, and lost": {
			make: func(t *testing.T, s *Staging) {
				require.NoError(t, s.WriteFile(2, data))
				d := s.fs.(*memDisk)
				d.fail[d.ops+1] = syscall.EIO
				require.Error(t, s.Sync())
			},
			missing: []Range{{0, 100}}, isEmpty: true, stage: stageNone, publish: refuse, read: refuse,
		},
		"published": {
			make: func(t *testing.T, s *Staging) {
				require.NoError(t, s.WriteAt(2, data, 0))
				require.NoError(t, publish(s, 2))
			},
			have: []Range{{0, 100}}, isPublished: true, stage: stagePublished, fill: refuse, again: refuse, file: refuse, layer: refuse, read: refuse,
		},
		"skipped": {
			make: func(t *testing.T, s *Staging) { require.NoError(t, s.Adopt(2)) },
			have: []Range{{0, 100}}, isPublished: true, isEmpty: true, stage: stageNamed, fill: refuse, again: refuse, file: refuse, layer: refuse, read: refuse,
		},
		"forgotten": {
			make: func(t *testing.T, s *Staging) {
				require.NoError(t, s.WriteAt(2, data, 0))
				require.NoError(t, s.Sync())
				require.NoError(t, s.Reset(2))
			},
			missing: []Range{{0, 100}}, isEmpty: true, stage: stageNone, publish: refuse, read: refuse,
		},
	}
}

// inSituation returns a Staging whose file 2 stands so.
func inSituation(t *testing.T, v situation) *Staging {
	t.Helper()
	s := createMem(t, newTestDisk(1, false), Options{})
	v.make(t, s)
	return s
}

func TestWhatIsKnownOfAFileFitsItsSituation(t *testing.T) {
	for name, v := range situations() {
		t.Run(name, func(t *testing.T) {
			s := inSituation(t, v)
			require.Equal(t, v.have, s.Have(2))
			require.Equal(t, v.missing, s.Missing(2))
			require.Equal(t, v.isPublished, s.Published(2))
			require.Equal(t, v.isEmpty, s.IsEmpty())
			require.Equal(t, v.dirty, s.Dirty())
			require.Equal(t, v.stage.String(), s.find(2).stage.String())
		})
	}
}

// Each call does what the situation allows, and leaves the file as it was when it refuses.
func TestACallIsTakenOrRefusedByTheSituation(t *testing.T) {
	data := content(2, 100)
	for name, v := range situations() {
		for call, c := range map[string]struct {
			do   func(s *Staging) error
			want fault.Code
		}{
			"WriteAt of the rest":     {func(s *Staging) error { return s.WriteAt(2, data[50:], 50) }, v.fill},
			"WriteAt of the first":    {func(s *Staging) error { return s.WriteAt(2, data[:50], 0) }, v.again},
			"WriteZeros of the first": {func(s *Staging) error { return s.WriteZeros(2, 0, 50) }, v.again},
			"WriteFile":               {func(s *Staging) error { return s.WriteFile(2, data) }, v.file},
			"Publish":                 {func(s *Staging) error { return publish(s, 2) }, v.publish},
			"Adopt":                   {func(s *Staging) error { return s.Adopt(2) }, v.adopt},
			"Reset":                   {func(s *Staging) error { return s.Reset(2) }, resetOf(v)},
			"SetLayer":                {func(s *Staging) error { return s.SetLayer(2, 0, cv(2)) }, v.layer},
			"ReadAt":                  {func(s *Staging) error { _, err := s.ReadAt(2, make([]byte, 10), 0); return err }, v.read},
			"Sync":                    {func(s *Staging) error { return s.Sync() }, ok},
		} {
			t.Run(call+" of "+name, func(t *testing.T) {
				s := inSituation(t, v)
				err := c.do(s)
				require.Equal(t, c.want, fault.CodeOf(err), "%v", err)
				if err != nil {
					require.Equal(t, v.stage, s.find(2).stage)
					require.Equal(t, v.have, s.Have(2))
					require.Equal(t, v.missing, s.Missing(2))
					require.Equal(t, v.dirty, s.Dirty())
				}
				require.NoError(t, s.Sync())
				require.Zero(t, s.Dirty())
				require.NoError(t, s.Close())
			})
		}
	}
}

// resetOf returns the code of Reset: a file that the journal is not told of yet is being published.
func resetOf(v situation) fault.Code {
	if v.stage == stageNamed {
		return refuse
	}
	return ok
}

// Whatever has become of a file, another process that opens the state knows no more than what is durable.
func TestEachSituationIsResumed(t *testing.T) {
	for name, v := range situations() {
		t.Run(name, func(t *testing.T) {
			s := inSituation(t, v)
			require.NoError(t, s.Close())
			again, err := Open(s.fs, testID, &Options{Rules: testRules})
			require.NoError(t, err)
			switch v.stage {
			case stagePublished:
				require.True(t, again.Published(2))
			case stageNamed:
				require.False(t, again.Published(2), "it was skipped in that run")
			default:
				require.Equal(t, v.have, again.Have(2))
			}
			require.Zero(t, again.Dirty())
			if !again.Published(2) {
				for _, r := range again.Missing(2) {
					require.NoError(t, again.WriteAt(2, content(2, 100)[r.From:r.To], r.From))
				}
				require.NoError(t, publish(again, 2))
			}
			require.Equal(t, content(2, 100), s.fs.(*memDisk).names["d/a"].data)
			require.NoError(t, again.Close())
		})
	}
}

func TestCallsOfAClosedStagingSaySo(t *testing.T) {
	s := createMem(t, newTestDisk(1, false), Options{})
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "again")
	for name, err := range map[string]error{
		"WriteAt": s.WriteAt(2, []byte("x"), 0), "WriteZeros": s.WriteZeros(2, 0, 1), "WriteFile": s.WriteFile(2, nil), "Sync": s.Sync(),
		"Publish": publish(s, 2), "Adopt": s.Adopt(2), "Reset": s.Reset(2), "SetLayer": s.SetLayer(2, 0, nil), "SetRoot": s.SetRoot(2, [32]byte{}),
		"Finish": s.Finish(),
	} {
		require.ErrorIs(t, err, os.ErrClosed, name)
		require.Equal(t, fault.CodeNoState, fault.CodeOf(err), name)
	}
	_, err := s.Existing(2)
	require.ErrorIs(t, err, os.ErrClosed)
	_, err = s.ReadAt(2, nil, 0)
	require.ErrorIs(t, err, os.ErrClosed)
}

func TestErrorsOfTheDiskGetTheirCode(t *testing.T) {
	path := func(err error) error { return &fs.PathError{Op: "open", Path: "x", Err: err} }
	list := &fault.Error{Path: "a", Area: fault.AreaList, Code: fault.CodePathUnsafe, Text: "no"}
	for _, c := range []struct {
		op   string
		err  error
		code fault.Code
		text string
	}{
		{"write", path(syscall.ENOSPC), fault.CodeNoSpace, `write "f": the disk is full: make room`},
		{"write", path(syscall.EDQUOT), fault.CodeNoSpace, `write "f": the disk is full: make room`},
		{"create", path(syscall.ENOSPC), fault.CodeNoSpace, `create "f": the disk is full: open x`},
		{"publish", fs.ErrExist, fault.CodeExists, `publish "f": the destination already has something else with that name`},
		{"publish", path(syscall.EEXIST), fault.CodeExists, `publish "f": the destination already has something else with that name: open x`},
		{"write", path(syscall.EACCES), fault.CodeDenied, `write "f": this user may not write there`},
		{"open", ErrBusy, fault.CodeBusy, `open "f": another process is receiving the same into this folder`},
		{"write", path(syscall.EIO), fault.CodeIO, `write "f": open x: input/output error`},
		{"create", list, fault.CodePathUnsafe, `create "a": no`},
	} {
		err := wrap(c.op, "f", c.err)
		require.Equal(t, c.code, fault.CodeOf(err), "%v", err)
		require.ErrorContains(t, err, c.text)
		require.Equal(t, err, wrap("other", "g", err), "once")
		require.Equal(t, c.code, fault.CodeOf(wrap("other", "g", fmt.Errorf("more: %w", err))))
		var e *fault.Error
		require.ErrorAs(t, err, &e)
		want := fault.AreaDestination
		if c.err == error(list) {
			want = fault.AreaList
			require.Empty(t, list.Op, "the error of the list is not changed")
		}
		require.Equal(t, want, e.Area)
	}
	require.NoError(t, wrap("write", "f", nil))
	require.True(t, errors.Is(errTaken, fs.ErrExist))
	require.False(t, errors.Is(errTaken, fs.ErrNotExist))
}
