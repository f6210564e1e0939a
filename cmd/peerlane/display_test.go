package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

func TestProgressReadsWell(t *testing.T) {
	half := transfer.Progress{Phase: transfer.PhaseData, Files: 12, FilesDone: 5, Bytes: 34_500_000, Verified: 15_600_000, Resumed: 5_000_000,
		Rate: 11e6, RateSlow: 10.8e6, ETA: 1750 * time.Millisecond}
	for _, test := range []struct {
		p         transfer.Progress
		line, bar string
	}{
		{transfer.Progress{Phase: transfer.PhaseStart}, "looking for the peer", "  0% 0 B/0 B 0/0 looking for the peer"},
		{half, "45%, 5 of 12 files, 15.6 MB of 34.5 MB, 10.8 MB/s, 1.8 s left, 5.0 MB were here", " 45% 15.6 MB/34.5 MB 5/12 11.0 MB/s 1.8 s (5.0 MB were here)"},
		{transfer.Progress{Phase: transfer.PhaseWaiting, Files: 1, Bytes: 100, Verified: 50, FilesBad: 1},
			"50%, 0 of 1 file, 50 B of 100 B, peer lost, looking for it, 1 failed", " 50% 50 B/100 B 0/1 peer lost, looking for it"},
		{transfer.Progress{Phase: transfer.PhasePaused, Files: 1, Bytes: 100, Verified: 99},
			"99%, 0 of 1 file, 99 B of 100 B, paused: the receiver's disk is full", " 99% 99 B/100 B 0/1 paused: the receiver's disk is full"},
		{transfer.Progress{Phase: transfer.PhaseDone, Files: 1, FilesDone: 1}, "100%, 1 of 1 file, 0 B of 0 B, 0 B/s", "100% 0 B/0 B 1/1"},
	} {
		require.Equal(t, test.line, progressText(test.p, true))
		require.Equal(t, test.bar, barText(test.p, true))
	}
	require.Contains(t, barText(transfer.Progress{Phase: transfer.PhaseList}, false), "waiting")
	require.Regexp(t, "^12 files, 15.6 MB .* 2.0 s, 5.3 MB/s, 5.0 MB ", gotText(transfer.Result{Progress: half, Took: 2 * time.Second}))
}

// lockedBuffer is a buffer that goroutines may write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// fetch fetches a tree of a hostile name so slowly that a display has something to show, and returns what it shows.
func fetch(t *testing.T, d *display) string {
	t.Helper()
	from := t.TempDir()
	file, other := filepath.Join(from, "file"), filepath.Join(from, "other")
	require.NoError(t, os.WriteFile(file, make([]byte, 400_000), 0o600))
	require.NoError(t, os.WriteFile(other, nil, 0o600))
	tree, err := source.Walk(t.Context(), []string{file, other}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, tree.Close()) }()
	p := peerlanetest.NewSessions(t, nil)
	v, err := transfer.NewService(nil)
	require.NoError(t, err)
	v.Handle(p.ToBob)
	share, err := v.Share(tree, &transfer.ShareOptions{Name: "a\x1b[2Jb"})
	require.NoError(t, err)
	defer share.Close()
	dial := func(context.Context) (*session.Session, error) { return p.Alice, nil }
	got := transfer.Fetch(t.Context(), []transfer.Dialer{dial}, share.Ref(), t.TempDir(),
		&transfer.ReceiveOptions{Options: transfer.Options{Rate: 600_000, OnEvent: d.event}})
	d.follow(got, "to me")
	_, err = got.Wait()
	require.NoError(t, err)
	require.NoError(t, v.Close())
	return d.out.(*lockedBuffer).String()
}

func TestWithoutATerminalThereAreLines(t *testing.T) {
	d := newDisplay(new(lockedBuffer))
	require.False(t, d.tty)
	d.every = 10 * time.Millisecond
	text := fetch(t, d)
	require.NotEmpty(t, text)
	require.NotContains(t, text, "\x1b")
	seen := make(map[string]bool)
	for line := range strings.Lines(text) {
		require.Regexp(t, `^to me( a\x{FFFD}\[2Jb)?: (looking for the peer|\d+%, \d of \d files?, .* of .*)\n$`, line)
		require.False(t, seen[line], "the same twice: %s", line)
		seen[line] = true
	}
}

func TestWithoutATerminalAShortTransferIsSilent(t *testing.T) {
	require.Empty(t, fetch(t, newDisplay(new(lockedBuffer))))
}

// escapes are what bars need to be drawn in their place.
var escapes = regexp.MustCompile(`\x1b\[\d*[AJ]`)

func TestOnATerminalThereAreBars(t *testing.T) {
	d := newDisplay(new(lockedBuffer))
	d.tty = true
	text := fetch(t, d)
	require.Contains(t, text, "to me a\uFFFD[2Jb")
	require.Contains(t, text, "100% 400 kB/400 kB 2/2")
	require.NotContains(t, escapes.ReplaceAllString(text, ""), "\x1b")
	require.Nil(t, d.bars)
	d.printf("after")
	require.True(t, strings.HasSuffix(d.out.(*lockedBuffer).String(), "after\n"))
}

func TestEventsSayWhatAndWhy(t *testing.T) {
	d := newDisplay(new(lockedBuffer))
	for _, e := range []transfer.Event{
		{Kind: transfer.EventFileFailed, Path: "a\x1b", Err: &transfer.Error{Op: "send", Path: "a\x1b", Code: transfer.CodeSourceChanged,
			Err: &transfer.Error{Area: transfer.AreaSource, Op: "read", Path: "a\x1b", Text: "it is gone"}}},
		{Kind: transfer.EventFileFailed, Path: "b", Err: &transfer.Error{Op: "receive", Path: "b", Code: transfer.CodeIO, Remote: true, Text: "x\x1b"}},
		{Kind: transfer.EventFileFailed, Path: "c", Err: &transfer.Error{Op: "send", Path: "c", Code: transfer.CodeExists, Remote: true, Text: "y"}},
		{Kind: transfer.EventFileFailed, Path: "d", Err: &transfer.Error{Op: "receive", Path: "d", Code: transfer.CodeHashMismatch, Text: "z"}},
		{Kind: transfer.EventFileFailed, Path: "e", Err: &transfer.Error{Op: "send", Path: "e", Code: transfer.CodeIO, Err: errors.New("no disk")}},
		{Kind: transfer.EventLost, Err: &transfer.Error{Text: "nothing came for too long", Code: transfer.CodeStalled}},
		{Kind: transfer.EventLost, Err: errors.New("x\x1by")},
		{Kind: transfer.EventLost, Err: errors.New("x\x1by")}, // the same again is not said
		{Kind: transfer.EventFetchedAgain, Path: "a\x1b"},
		{Kind: transfer.EventStalled},
	} {
		d.event(e)
	}
	require.Equal(t, `failed   "a\x1b": it is gone (source_changed)
failed   "b": the sender says "x\x1b" (io)
failed   "c": the receiver says "y" (exists)
failed   "d": z (hash_mismatch)
failed   "e": no disk (io)
note     lost: nothing came for too long (stalled)
note     lost: x`+"\uFFFD"+`y
note     fetched again "a\x1b"
note     stalled
`, d.out.(*lockedBuffer).String())
}

// Of a wave of failures the first are named, and the rest are counted when the transfer has ended.
func TestAWaveOfEventsIsCounted(t *testing.T) {
	d := newDisplay(new(lockedBuffer))
	for range 2 {
		for n := range 600 {
			path := strconv.Itoa(n)
			d.event(transfer.Event{Kind: transfer.EventFileFailed, Path: path, Err: &transfer.Error{Path: path, Text: "gone"}})
			d.event(transfer.Event{Kind: transfer.EventFetchedAgain, Path: path})
		}
		d.tellRest()
	}
	text := d.out.(*lockedBuffer).String()
	require.Equal(t, 2*(2*mostAlike+2), strings.Count(text, "\n"))
	require.Equal(t, 2, strings.Count(text, "failed   580 files more\n"))
	require.Equal(t, 2, strings.Count(text, "note     fetched again: 580 more times\n"))
	d.tellRest()
	require.Equal(t, text, d.out.(*lockedBuffer).String())
}

// A sender and a receiver that moved nothing, as all was at the receiver, do not claim that they did.
func TestALineOfATransferThatMovedNothingBeginsWithThere(t *testing.T) {
	p := transfer.Progress{Files: 2, FilesDone: 2, Bytes: 5, Verified: 5}
	require.Regexp(t, `^there    "n": .*2 files, 5 B, .* P .*$`, sentLine(transfer.Result{Name: "n", Progress: p}, "P"))
	p.Crossed = 60
	require.Regexp(t, `^sent     "n": 2 files, 5 B .* P$`, sentLine(transfer.Result{Name: "n", Progress: p}, "P"))
	require.Regexp(t, `^sent     "n": 0 files, 0 B .* P$`, sentLine(transfer.Result{Name: "n"}, "P"))
	require.False(t, gotNothing(p))
	p.Resumed = 5
	require.True(t, gotNothing(p))
	require.False(t, gotNothing(transfer.Progress{}))
}
