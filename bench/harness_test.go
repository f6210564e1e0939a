package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tiny is the shortest run that still calls.
var tiny = settings{Rounds: 1, Cell: 5 * time.Millisecond, WarmUp: time.Millisecond, Payload: "random"}

// fakeService is a service whose callers share one call function.
type fakeService struct {
	call   callFunc
	opened atomic.Int64
	closed atomic.Int64
}

func (s *fakeService) Caller(context.Context) (caller, error) {
	s.opened.Add(1)
	return &fakeCaller{s.call, s}, nil
}

func (s *fakeService) Stop() error { return nil }

type fakeCaller struct {
	callFunc
	service *fakeService
}

func (c *fakeCaller) Close() error { c.service.closed.Add(1); return nil }

func echoCall(_ context.Context, payload []byte) ([]byte, error) { return payload, nil }

func TestEveryContenderEchoesUnderEveryLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	var table bytes.Buffer
	require.NoError(t, run(options{set: tiny, json: path}, &table, io.Discard))
	want := 0
	for _, c := range contenders() {
		want += len(c.Transports()) * len(loads)
		require.Contains(t, table.String(), c.Name())
	}
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var r report
	require.NoError(t, json.Unmarshal(data, &r))
	require.Len(t, r.Results, want)
	for _, res := range r.Results {
		require.Len(t, res.Rounds, 1, "%+v", res)
		require.Positive(t, res.Median.Calls, "%+v", res)
		require.Positive(t, res.Median.P50, "%+v", res)
		require.LessOrEqual(t, res.Median.P50, res.Median.P99, "%+v", res)
	}
}

func TestMeasureRejectsWrongEchoes(t *testing.T) {
	for name, call := range map[string]callFunc{
		"echo has 127 bytes": func(_ context.Context, p []byte) ([]byte, error) { return p[1:], nil },
		"echo is of another call": func(_ context.Context, p []byte) ([]byte, error) {
			q := bytes.Clone(p)
			q[stampSize-1]++
			return q, nil
		},
		"echo differs": func(_ context.Context, p []byte) ([]byte, error) {
			q := bytes.Clone(p)
			q[len(q)-1]++
			return q, nil
		},
		"broken": func(context.Context, []byte) ([]byte, error) { return nil, errors.New("broken") },
	} {
		s := &fakeService{call: call}
		_, err := measure(s, smallAlone, tiny)
		require.ErrorContains(t, err, name)
		require.Equal(t, s.opened.Load(), s.closed.Load(), "%s: a caller is left open", name)
	}
}

func TestMeasureComparesEveryByteOfEach64thReply(t *testing.T) {
	var calls int
	s := &fakeService{call: func(_ context.Context, p []byte) ([]byte, error) {
		calls++
		q := bytes.Clone(p)
		if calls > 1 {
			q[len(q)-1]++
		}
		return q, nil
	}}
	_, err := measure(s, smallAlone, settings{Cell: time.Minute, WarmUp: time.Minute, Payload: "random"})
	require.ErrorContains(t, err, "caller 0, call 64: echo differs")
	require.Equal(t, fullCheckEvery+1, calls)
}

func TestFirstErrorEndsTheCallsOfTheOthers(t *testing.T) {
	var calls atomic.Int64
	s := &fakeService{call: func(ctx context.Context, _ []byte) ([]byte, error) {
		if calls.Add(1) == int64(smallMany.Callers) {
			return nil, errors.New("broken")
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	_, err := measure(s, smallMany, tiny)
	require.ErrorContains(t, err, "broken")
	require.Equal(t, int64(smallMany.Callers), s.closed.Load())
}

func TestMeasureCountsCallsAndAllocations(t *testing.T) {
	s := &fakeService{call: func(_ context.Context, p []byte) ([]byte, error) { return bytes.Clone(p), nil }}
	got, err := measure(s, smallAlone, settings{Cell: 50 * time.Millisecond, WarmUp: time.Millisecond, Payload: "zero"})
	require.NoError(t, err)
	require.Positive(t, got.CallsPerSec)
	require.LessOrEqual(t, got.CallsPerSec, float64(got.Calls)/0.05, "no cell is shorter than asked")
	require.InDelta(t, 1, got.AllocsPerCall, 0.5)
	require.InDelta(t, 128, got.BytesPerCall, 64)
}

func TestRoundsStartAtDifferentEntries(t *testing.T) {
	var order []string
	entryOf := func(name string) entry {
		first := true
		return entry{name: name, transport: overTCP, service: &fakeService{call: func(_ context.Context, p []byte) ([]byte, error) {
			if first || len(order) == 0 || order[len(order)-1] != name {
				order = append(order, name)
			}
			first = false
			return p, nil
		}}}
	}
	set := tiny
	set.Rounds = 3
	_, err := measureAll([]entry{entryOf("a"), entryOf("b"), entryOf("c")}, []load{smallAlone}, set, func(string) {})
	require.NoError(t, err)
	require.Equal(t, "abcbcacab", strings.Join(order, ""))
}

func TestStartAllStopsWhatItStartedOnFailure(t *testing.T) {
	var stopped []string
	_, _, err := startAll([]contender{
		fakeContender{name: "a", stopped: &stopped},
		fakeContender{name: "b", stopped: &stopped},
		fakeContender{name: "c", err: errors.New("no")},
	})
	require.ErrorContains(t, err, "start c over tcp: no")
	require.Equal(t, []string{"b", "a"}, stopped)
}

type fakeContender struct {
	name    string
	err     error
	stopped *[]string
}

func (c fakeContender) Name() string                     { return c.name }
func (c fakeContender) Transports() []transport          { return onlyTCP }
func (c fakeContender) Start(transport) (service, error) { return c, c.err }
func (c fakeContender) Stop() error                      { *c.stopped = append(*c.stopped, c.name); return nil }

func (c fakeContender) Caller(context.Context) (caller, error) { return callFunc(echoCall), nil }
