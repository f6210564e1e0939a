package staging

import (
	"cmp"
	"slices"
)

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
	i, _ := slices.BinarySearchFunc(r, n.From, func(have Range, from int64) int {
		if have.To <= from {
			return -1
		}
		return 1
	})
	return i < len(r) && n.From < n.To && r[i].From < n.To
}

// merge returns what r or other has, in their own memory. It goes through both once.
func (r ranges) merge(other ranges) ranges {
	if len(other) == 0 {
		return r
	}
	if len(r) == 0 {
		return other
	}
	out := make(ranges, 0, len(r)+len(other))
	for len(r)+len(other) > 0 {
		from := &r
		if len(r) == 0 || len(other) > 0 && other[0].From < r[0].From {
			from = &other
		}
		out = out.push((*from)[0])
		*from = (*from)[1:]
	}
	return slices.Clip(out)
}

// push is add of what begins nowhere before the last.
func (r ranges) push(n Range) ranges {
	if last := len(r) - 1; last >= 0 && n.From <= r[last].To {
		r[last].To = max(r[last].To, n.To)
		return r
	}
	return append(r, n)
}

// sorted returns what r, in any order and overlapping, has.
func (r ranges) sorted() ranges {
	slices.SortFunc(r, func(a, b Range) int { return cmp.Compare(a.From, b.From) })
	out := r[:0]
	for _, n := range r {
		out = out.push(n)
	}
	return out
}

// size returns how many bytes r has.
func (r ranges) size() int64 {
	n := int64(0)
	for _, have := range r {
		n += have.To - have.From
	}
	return n
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

// without returns what r has and other does not.
func (r ranges) without(other ranges) ranges {
	var out ranges
	for _, n := range r {
		i, _ := slices.BinarySearchFunc(other, n.From, func(have Range, from int64) int {
			if have.To <= from {
				return -1
			}
			return 1
		})
		for ; i < len(other) && other[i].From < n.To; i++ {
			if other[i].From > n.From {
				out = append(out, Range{n.From, other[i].From})
			}
			n.From = other[i].To
		}
		if n.From < n.To {
			out = append(out, n)
		}
	}
	return out
}
