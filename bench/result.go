package main

import (
	"slices"
	"time"
)

// A result is everything measured of one contender on one transport under one
// load.
type result struct {
	Load      load      `json:"load"`
	Contender string    `json:"contender"`
	Transport transport `json:"transport"`
	Rounds    []sample  `json:"rounds"`
	Median    sample    `json:"median"` // each field by itself

	// Ratios hold peerlane's calls per second by this contender's, by the
	// transport peerlane ran on.
	Ratios map[transport]ratio `json:"ratios,omitempty"`
}

// A ratio compares two contenders round by round.
type ratio struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// subject is the contender that all others are compared with.
const subject = "peerlane"

// newResults returns an empty result for each entry under each load, load by
// load and in the order of entries.
func newResults(entries []entry, loads []load) []result {
	results := make([]result, 0, len(entries)*len(loads))
	for _, l := range loads {
		for _, e := range entries {
			results = append(results, result{Load: l, Contender: e.name, Transport: e.transport})
		}
	}
	return results
}

// find returns the result of contender on t under l, or nil.
func find(results []result, l load, contender string, t transport) *result {
	i := slices.IndexFunc(results, func(r result) bool {
		return r.Load == l && r.Contender == contender && r.Transport == t
	})
	if i < 0 {
		return nil
	}
	return &results[i]
}

// summarize fills in the medians and the ratios of results.
func summarize(results []result) {
	for i := range results {
		r := &results[i]
		r.Median = medianSample(r.Rounds)
		r.Ratios = make(map[transport]ratio)
		for _, t := range everyTransport {
			if s := find(results, r.Load, subject, t); s != nil && meaningful(s, r) {
				r.Ratios[t] = ratioOf(s.Rounds, r.Rounds)
			}
		}
	}
}

// meaningful reports whether the ratio of s to r says anything: among libp2p's
// contenders only on one transport, and not of s to itself.
func meaningful(s, r *result) bool {
	if s == r {
		return false
	}
	return s.Transport == r.Transport || !isLibp2p(r.Contender)
}

// isLibp2p reports whether the contender of that name has libp2p's transports.
func isLibp2p(name string) bool {
	for _, c := range contenders() {
		if c.Name() == name {
			return slices.Contains(c.Transports(), overQUIC)
		}
	}
	return false
}

// ratioOf returns how many times faster a was than b, round by round.
func ratioOf(a, b []sample) ratio {
	each := make([]float64, min(len(a), len(b)))
	for i := range each {
		each[i] = a[i].CallsPerSec / b[i].CallsPerSec
	}
	return ratio{Median: median(each), Min: slices.Min(each), Max: slices.Max(each)}
}

// medianSample returns the medians of the fields of rounds.
func medianSample(rounds []sample) sample {
	return sample{
		Calls:         medianOf(rounds, func(s sample) int { return s.Calls }),
		CallsPerSec:   medianOf(rounds, func(s sample) float64 { return s.CallsPerSec }),
		P50:           medianOf(rounds, func(s sample) time.Duration { return s.P50 }),
		P99:           medianOf(rounds, func(s sample) time.Duration { return s.P99 }),
		AllocsPerCall: medianOf(rounds, func(s sample) float64 { return s.AllocsPerCall }),
		BytesPerCall:  medianOf(rounds, func(s sample) float64 { return s.BytesPerCall }),
	}
}

// medianOf returns the median of one field of rounds.
func medianOf[T number](rounds []sample, field func(sample) T) T {
	values := make([]T, len(rounds))
	for i, s := range rounds {
		values[i] = field(s)
	}
	return median(values)
}

// number is what a median can be taken of.
type number interface{ ~int | ~int64 | ~float64 }

// median returns the middle value, or the mean of the middle two. It sorts
// values.
func median[T number](values []T) T {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
