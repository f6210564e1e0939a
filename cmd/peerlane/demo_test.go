package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheDemosJSONHasOneObjectPerStep(t *testing.T) {
	before := steps
	defer func() { steps = before }()
	steps = steps[:2] // the script demo runs all
	var out bytes.Buffer
	require.NoError(t, (&demoCmd{JSON: true}).Run(t.Context(), stdio{out: &out}))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, len(steps)*len(demoTransports))
	for i, line := range lines {
		var r result
		require.NoError(t, json.Unmarshal([]byte(line), &r), line)
		require.True(t, r.OK, line)
		require.Equal(t, steps[i/len(demoTransports)].name, r.Step)
		require.Equal(t, demoTransports[i%len(demoTransports)].name, r.Transport)
		require.NotEmpty(t, r.Figure, line)
		require.Positive(t, r.Millis, line)
	}
}

// A step that fails is shown as such, and the steps after it run.
func TestAFailedStepFailsTheDemo(t *testing.T) {
	before := steps
	defer func() { steps = before }()
	steps = []step{
		{"broken", func(context.Context, *lab) (string, error) { return "", errors.New("no\nluck") }},
		{"fine", func(context.Context, *lab) (string, error) { return "all of it", nil }},
	}
	var out bytes.Buffer
	err := (&demoCmd{}).Run(t.Context(), stdio{out: &out})
	require.ErrorIs(t, err, errFailed)
	require.ErrorContains(t, err, "2 of 4 steps")
	want := []string{"tcp quic", "broken FAILED FAILED", "tcp: no luck", "quic: no luck", "fine all of it ok ok"}
	for i, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		require.Equal(t, want[i], strings.Join(strings.Fields(line), " "))
	}
}

func TestTheFiguresOfAStepAreSplit(t *testing.T) {
	common, own := split([]result{{Figure: "5 calls, 3 us", OK: true}, {Error: "no"}, {Figure: "5 calls, 4 us", OK: true}})
	require.Equal(t, "5 calls", common)
	require.Equal(t, []string{"3 us", "", "4 us"}, own)
	common, own = split([]result{{Figure: "psk mismatch", OK: true}, {Figure: "psk mismatch", OK: true}})
	require.Equal(t, "psk mismatch", common)
	require.Equal(t, []string{"", ""}, own)
	common, own = split([]result{{Figure: "5 calls, 24 us, p99 30 us", OK: true}, {Figure: "5 calls, 24 us, p99 31 us", OK: true}})
	require.Equal(t, "5 calls", common, "the same median by chance")
	require.Equal(t, []string{"24 us, p99 30 us", "24 us, p99 31 us"}, own)
}

// The last step looks for what others leave: it must find it.
func TestNothingLeftFindsWhatIsLeft(t *testing.T) {
	l, err := newLab(t.Context(), demoTransports[0])
	require.NoError(t, err)
	defer func() { require.NoError(t, l.close()) }()
	x, err := newExchange(l, demoTag+"left", reverseHandler, keys{})
	require.NoError(t, err)
	require.NoError(t, x.call(t.Context(), []byte("12345678")))
	require.Positive(t, l.streams())
	require.Len(t, l.handlers(), 2)
	require.NoError(t, x.close())
	require.Empty(t, l.handlers())
}

// The demo refuses what a peer gets wrong: an answer that is only the echo is not the answer.
func TestACallIsCheckedByteByByte(t *testing.T) {
	l, err := newLab(t.Context(), demoTransports[0])
	require.NoError(t, err)
	defer func() { require.NoError(t, l.close()) }()
	x, err := newExchange(l, demoTag+"echo", func(b []byte) ([]byte, error) { return b, nil }, keys{})
	require.NoError(t, err)
	defer func() { require.NoError(t, x.close()) }()
	require.ErrorContains(t, x.call(t.Context(), []byte("12345678")), "came back changed")
}

func TestTheDemoEndsWithItsCtx(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, (&demoCmd{}).Run(ctx, stdio{out: &bytes.Buffer{}}), context.Canceled)
}
