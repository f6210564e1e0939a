package main

import (
	"math/bits"
	"time"
)

const (
	subBits    = 6 // 64 buckets to each power of two: a value is kept to 1.6 %
	subBuckets = 1 << subBits
	octaves    = 40 // up to 2^45 ns, about ten hours
)

// A histogram counts durations in log-linear buckets. It never allocates, so
// recording does not show in the allocation figures.
type histogram struct {
	buckets [octaves * subBuckets]uint32
	count   int
}

// bucketOf returns the bucket that counts d.
func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < subBuckets {
		return int(n)
	}
	shift := bits.Len64(n) - subBits - 1
	i := (shift+1)<<subBits | int(n>>shift)&(subBuckets-1)
	return min(i, octaves*subBuckets-1)
}

// floorOf returns the smallest duration that bucket i counts.
func floorOf(i int) time.Duration {
	if i < subBuckets {
		return time.Duration(i)
	}
	shift := i>>subBits - 1
	return time.Duration((subBuckets | i&(subBuckets-1)) << shift)
}

// record counts d.
func (h *histogram) record(d time.Duration) {
	h.buckets[bucketOf(d)]++
	h.count++
}

// add adds all that other counted.
func (h *histogram) add(other *histogram) {
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	h.count += other.count
}

// quantile returns the duration that the fraction q of all recorded ones does
// not exceed, to the bucket; zero if nothing was recorded.
func (h *histogram) quantile(q float64) time.Duration {
	rank := int(q * float64(h.count-1))
	for i, n := range h.buckets {
		rank -= int(n)
		if rank < 0 {
			return floorOf(i)
		}
	}
	return 0
}
