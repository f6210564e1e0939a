package staging

import "slices"

// A Range is the bytes of a file from From to To, which is excluded.
type Range struct{ From, To int64 }

// ranges are in order, and neither empty nor touching each other.
type ranges []Range

// add returns r with n in it.
func (r ranges) add(n Range) ranges {
	if n.From >= n.To {
		return r
	}
	first, _ := slices.BinarySearchFunc(r, n.From, func(have Range, from int64) int {
		if have.To < from {
			return -1
		}
		return 1
	})
	last := first
	for last < len(r) && r[last].From <= n.To {
		n.From, n.To = min(n.From, r[last].From), max(n.To, r[last].To)
		last++
	}
	return slices.Replace(r, first, last, n)
}

// overlaps reports whether r has any byte of n.
func (r ranges) overlaps(n Range) bool {
	for _, have := range r {
		if have.From < n.To && n.From < have.To {
			return true
		}
	}
	return false
}

// missing returns what r does not have of the first size bytes.
func (r ranges) missing(size int64) []Range {
	var out []Range
	at := int64(0)
	for _, have := range r {
		if have.From > at {
			out = append(out, Range{at, have.From})
		}
		at = have.To
	}
	if at < size {
		out = append(out, Range{at, size})
	}
	return out
}
