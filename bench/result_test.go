package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rounds returns samples with the given calls per second.
func rounds(rates ...float64) []sample {
	s := make([]sample, len(rates))
	for i, r := range rates {
		s[i] = sample{CallsPerSec: r}
	}
	return s
}

// resultOf returns a result under smallAlone.
func resultOf(name string, t transport, rates ...float64) result {
	return result{Load: smallAlone, Contender: name, Transport: t, Rounds: rounds(rates...)}
}

func TestMedian(t *testing.T) {
	require.Equal(t, 2, median([]int{3, 1, 2}))
	require.Equal(t, 2.5, median([]float64{4, 1, 2, 3}))
}

func TestRatioIsTakenRoundByRound(t *testing.T) {
	// The medians alone (20 and 10) would say 2.
	got := ratioOf(rounds(10, 20, 90), rounds(10, 5, 30))
	require.Equal(t, ratio{Median: 3, Min: 1, Max: 4}, got)
}

func TestLibp2pContendersAreComparedOnTheirTransportOnly(t *testing.T) {
	results := []result{
		resultOf(subject, overTCP, 100),
		resultOf(subject, overQUIC, 50),
		resultOf(rawName, overTCP, 200),
		resultOf(rawName, overQUIC, 100),
		resultOf(grpcName, overTCP, 25),
	}
	summarize(results)
	require.Empty(t, results[0].Ratios)
	require.Empty(t, results[1].Ratios)
	require.Equal(t, map[transport]ratio{overTCP: {0.5, 0.5, 0.5}}, results[2].Ratios)
	require.Equal(t, map[transport]ratio{overQUIC: {0.5, 0.5, 0.5}}, results[3].Ratios)
	require.Equal(t, map[transport]ratio{overTCP: {4, 4, 4}, overQUIC: {2, 2, 2}}, results[4].Ratios)
}

func TestVerdictsNeedTheFloorMeasuredAndMet(t *testing.T) {
	results := []result{
		resultOf(subject, overTCP, 89, 95, 96),
		resultOf(rawName, overTCP, 100, 100, 100),
		resultOf(grpcName, overTCP, 100, 100, 100),
	}
	summarize(results)
	verdicts := judge(results, []floor{
		{"met", smallAlone, overTCP, rawName, overTCP, 0.95},
		{"missed", smallAlone, overTCP, grpcName, overTCP, 0.96},
		{"unmeasured", smallAlone, overTCP, natsName, overTCP, 0.1},
	})
	var out bytes.Buffer
	require.ErrorIs(t, writeVerdicts(&out, verdicts), errBelowFloor)
	require.Equal(t, ""+
		"ok   met                   128 B x 1   peerlane tcp / raw stream tcp: 0.95 (0.89..0.96), floor 0.95\n"+
		"FAIL missed                128 B x 1   peerlane tcp / grpc tcp: 0.95 (0.89..0.96), floor 0.96\n"+
		"FAIL unmeasured            128 B x 1   peerlane tcp / nats tcp: not measured, floor 0.10\n", out.String())
	require.NoError(t, writeVerdicts(&out, verdicts[:1]))
}

func TestEveryFloorNamesAContenderAndALoad(t *testing.T) {
	names := make(map[string]bool)
	for _, f := range floors {
		require.Contains(t, loads, f.Load, f.Name)
		require.True(t, isKnown(f.Against, f.On), f.Name)
		require.True(t, isKnown(subject, f.Transport), f.Name)
		require.False(t, names[f.Name], f.Name)
		names[f.Name] = true
	}
}

// isKnown reports whether there is a contender of that name on that transport.
func isKnown(name string, on transport) bool {
	for _, c := range contenders() {
		for _, t := range c.Transports() {
			if c.Name() == name && t == on {
				return true
			}
		}
	}
	return false
}

func TestTableShowsEachResultInItsBlock(t *testing.T) {
	results := []result{
		{Load: smallAlone, Contender: subject, Transport: overTCP,
			Median: sample{CallsPerSec: 1234.5, P50: 12340, P99: 5 * time.Millisecond, AllocsPerCall: 4, BytesPerCall: 56}},
		{Load: largeMany, Contender: grpcName, Transport: overTCP, Median: sample{CallsPerSec: 10},
			Ratios: map[transport]ratio{overTCP: {1.5, 1.25, 2}}},
	}
	var out bytes.Buffer
	require.NoError(t, writeTable(&out, results))
	require.Equal(t, ""+
		"load         contender        over   calls/s       p50       p99   allocs         B   peerlane tcp /      peerlane quic /\n"+
		"\n"+
		"128 B x 1    peerlane         tcp       1234   12.3 us   5000 us      4.0        56   -                   -\n"+
		"\n"+
		"64 KiB x 16  grpc             tcp         10    0.0 us    0.0 us      0.0         0   1.50 (1.25..2.00)   -\n", out.String())
}
