package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var tinyLoads = []fileLoad{{Files: 1, Size: 3 << 20}, {Files: 250, Size: 4 << 10}}

// tinyTrees makes trees of the tiny loads, in a directory that is returned too.
func tinyTrees(t *testing.T) ([]*fileTree, string) {
	t.Helper()
	base := t.TempDir()
	trees := make([]*fileTree, len(tinyLoads))
	for i, l := range tinyLoads {
		var err error
		trees[i], err = newFileTree(base, l, "random")
		require.NoError(t, err, "%s", l)
	}
	return trees, base
}

func TestMoversBringTheSameFiles(t *testing.T) {
	trees, base := tinyTrees(t)
	results, err := measureMoves(t.Context(), movers(), trees, base, 1, func(string) {})
	require.NoError(t, err)
	require.Len(t, results, len(movers())*len(tinyLoads))
	for _, r := range results {
		if r.NotRun != "" {
			require.Contains(t, r.NotRun, "is not installed", "%+v", r)
			t.Log(r.Contender, r.NotRun)
			continue
		}
		require.Positive(t, r.Median.MBPerSec, "%+v", r)
		require.Positive(t, r.Ratio.Median, "%+v", r)
		require.Equal(t, fetchMover{}.Name(), r.RatioOf)
	}
	left, err := os.ReadDir(base)
	require.NoError(t, err)
	require.Len(t, left, len(tinyLoads), "destinations are removed")

	var table bytes.Buffer
	require.NoError(t, writeMoves(&table, results))
	for _, m := range movers() {
		require.Contains(t, table.String(), m.Name())
	}
}

func TestAnInterruptEndsTheRunAndLeavesNothing(t *testing.T) {
	trees, base := tinyTrees(t)
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	for _, m := range movers() {
		if m.Missing() != "" {
			continue
		}
		_, err := measureMoves(ctx, []mover{m}, trees, base, 1, func(string) {})
		require.Error(t, err, m.Name())
	}
	_, err := measureMemory(ctx, trees[0], base)
	require.Error(t, err)
	_, err = measureBeside(ctx, trees[0], base, settings{Rounds: 1, Cell: time.Millisecond, Payload: "random"})
	require.Error(t, err)
	left, err := os.ReadDir(base)
	require.NoError(t, err)
	require.Len(t, left, len(tinyLoads))
}

func TestAMissingProgramIsNamed(t *testing.T) {
	t.Setenv("PATH", "")
	trees, base := tinyTrees(t)
	results, err := measureMoves(t.Context(), []mover{rsyncMover{}, laneMover{}, cpMover{}}, trees[:1], base, 1, func(string) {})
	require.NoError(t, err)
	var table bytes.Buffer
	require.NoError(t, writeMoves(&table, results))
	require.Contains(t, table.String(), "not run: rsync is not installed")
	require.Contains(t, table.String(), "not run: cp is not installed")
	require.Contains(t, table.String(), "lane copy /", "the first that has run is what others are compared with")
}

func TestRatiosAreTakenRoundByRound(t *testing.T) {
	speeds := func(s ...float64) (rounds []moveSample) {
		for _, v := range s {
			rounds = append(rounds, moveSample{MBPerSec: v})
		}
		return rounds
	}
	results := []moveResult{
		{Contender: "a", NotRun: "a is not installed"},
		{Contender: "b", Rounds: speeds(100, 10, 40)},
		{Contender: "c", Rounds: speeds(200, 40, 10)},
	}
	summarizeMoves(results)
	require.Nil(t, results[0].Ratio)
	require.Equal(t, ratio{Median: 1, Min: 1, Max: 1}, *results[1].Ratio)
	require.Equal(t, ratio{Median: 0.5, Min: 0.25, Max: 4}, *results[2].Ratio)
	require.Equal(t, "b", results[2].RatioOf)
	require.InDelta(t, 40, results[1].Median.MBPerSec, 0)
	require.InDelta(t, 40, results[2].Median.MBPerSec, 0)
}

func TestCheckFindsWhatIsLostAddedOrChanged(t *testing.T) {
	trees, _ := tinyTrees(t)
	tree := trees[1]
	one := filepath.Join(tree.dir, "2", "249")
	content, err := os.ReadFile(one)
	require.NoError(t, err)
	from := filepath.Dir(tree.dir)
	require.NoError(t, tree.check(from))

	changed := slices.Clone(content)
	changed[len(changed)-1] ^= 1
	require.NoError(t, os.WriteFile(one, changed, 0o644))
	require.ErrorContains(t, tree.check(from), "not the same files")
	require.NoError(t, os.WriteFile(one, content[1:], 0o644))
	require.ErrorContains(t, tree.check(from), "not the same files")
	require.NoError(t, os.Remove(one))
	require.ErrorContains(t, tree.check(from), "249 files")
	require.NoError(t, os.WriteFile(one, content, 0o644))
	require.NoError(t, tree.check(from))
	require.NoError(t, os.WriteFile(filepath.Join(from, "more"), nil, 0o644))
	require.ErrorContains(t, tree.check(from), "251 files")
}

func TestFilesOfATreeDiffer(t *testing.T) {
	for _, kind := range []string{"random", "text", "zero"} {
		tree, err := newFileTree(t.TempDir(), fileLoad{Files: 120, Size: 4 << 10}, kind)
		require.NoError(t, err)
		seen := make(map[string]bool)
		for i := range 120 {
			data, err := os.ReadFile(filepath.Join(tree.dir, fmt.Sprint(i/perFolder), fmt.Sprint(i)))
			require.NoError(t, err)
			seen[string(data)] = true
		}
		require.Len(t, seen, 120, "%s", kind)
	}
}

func TestSendIsTimedAloneAndBesideOthers(t *testing.T) {
	trees, base := tinyTrees(t)
	set := settings{Rounds: 1, Cell: time.Second, WarmUp: 10 * time.Millisecond, Payload: "random"} // long enough for a fetch on a busy machine
	results, err := measureBeside(t.Context(), trees[0], base, set)
	require.NoError(t, err)
	require.Len(t, results, 3)
	for i, r := range results {
		require.Positive(t, r.Median.P99, "%+v", r)
		require.Positive(t, r.Ratio.Median, "%+v", r)
		require.Equal(t, i > 0, r.Median.MBPerSec > 0, "%+v", r)
	}
	var table bytes.Buffer
	require.NoError(t, writeBeside(&table, results))
	require.Contains(t, table.String(), "beside a fetch")
}

func TestMemoryOfAFetchIsSampledWhereTheSystemTells(t *testing.T) {
	trees, base := tinyTrees(t)
	r, err := measureMemory(t.Context(), trees[0], base)
	require.NoError(t, err)
	_, known := residentBytes()
	require.Equal(t, known, r != nil)
	if known {
		require.Positive(t, r.Before)
		require.GreaterOrEqual(t, r.Peak, r.Before)
	}
	var line bytes.Buffer
	require.NoError(t, writeMemory(&line, r))
	require.Equal(t, known, line.Len() > 0)
}

func TestFilesGoToTheTemporaryOnesWhereMemoryHasNoRoom(t *testing.T) {
	for _, need := range []int64{1, 1 << 60} {
		where, err := newWorkspace(need)
		require.NoError(t, err)
		require.DirExists(t, where.Dir)
		require.NotEmpty(t, where.Note)
		require.NoError(t, os.RemoveAll(where.Dir))
	}
	if _, known := freeBytes(memoryDir); known {
		where, err := newWorkspace(1 << 60)
		require.NoError(t, err)
		require.Contains(t, where.Note, "the temporary files")
		require.NoError(t, os.RemoveAll(where.Dir))
	}
}

func TestQuickAndLargeSayHowMuchIsMoved(t *testing.T) {
	for _, tc := range []struct {
		args   []string
		rounds int
		want   []string
	}{
		{[]string{"-files"}, 5, []string{"1 x 256 MiB", "10000 x 4 KiB"}},
		{[]string{"-files", "-quick"}, 3, []string{"1 x 64 MiB", "2000 x 4 KiB"}},
		{[]string{"-files", "-quick", "-rounds", "5"}, 5, []string{"1 x 64 MiB", "2000 x 4 KiB"}},
		{[]string{"-files", "-large"}, 5, []string{"1 x 1024 MiB", "10000 x 4 KiB"}},
	} {
		o, err := parseOptions(tc.args, io.Discard)
		require.NoError(t, err, "%q", tc.args)
		require.Equal(t, tc.rounds, o.set.Rounds, "%q", tc.args)
		var got []string
		for _, l := range o.fileLoads() {
			got = append(got, l.String())
		}
		require.Equal(t, tc.want, got, "%q", tc.args)
	}
}

func TestOnlyChoosesMovers(t *testing.T) {
	o, err := parseOptions([]string{"-files", "-only", "^peerlane fetch$|cp"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, []mover{fetchMover{}, cpMover{}}, o.movers())
}

func TestFilesOptionsThatCannotRunNameTheirFlag(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"-large"}, "-large"},
		{[]string{"-files", "-records"}, "-records"},
		{[]string{"-files", "-check"}, "-check"},
		{[]string{"-files", "-only", "nats"}, "-only"},
	} {
		_, err := parseOptions(tc.args, io.Discard)
		require.ErrorContains(t, err, tc.want, "%q", tc.args)
	}
}

func TestADaemonThatCannotStartIsToldOf(t *testing.T) {
	if missing("rsync") != "" {
		t.Setenv("PATH", "")
		_, err := rsyncMover{}.Start(&fileTree{dir: t.TempDir()})
		require.Error(t, err)
		return
	}
	s, err := rsyncMover{}.Start(&fileTree{dir: filepath.Join(t.TempDir(), "none", treeName)})
	require.NoError(t, err)
	require.ErrorContains(t, s.Move(t.Context(), t.TempDir()), "rsync: exit status")
	require.NoError(t, s.Stop())
}
