package lane

import "time"

// A Budget bounds what the users of it hold together, in bytes. It is safe for concurrent use, and may be used with locks held.
type Budget interface {
	// Take reserves n more bytes, or returns false.
	Take(n int) bool
	// Give gives back n reserved bytes.
	Give(n int)
}

// Held counts what one user of a Budget holds. The zero value has no Budget: it may take anything. Its owner guards it.
type Held struct {
	budget Budget
	n      int
}

// In returns an empty Held in a budget, which may be nil.
func In(budget Budget) Held { return Held{budget: budget} }

// Take reserves n more bytes, or returns false.
func (h *Held) Take(n int) bool {
	if h.budget == nil {
		return true
	}
	if n > 0 && !h.budget.Take(n) {
		return false
	}
	h.n += n
	return true
}

// Give gives back n reserved bytes.
func (h *Held) Give(n int) {
	if h.budget != nil && n > 0 {
		h.budget.Give(n)
		h.n -= n
	}
}

// UpTo takes or gives back what is missing or too much when n bytes are held, and returns false if there is no room for that.
func (h *Held) UpTo(n int) bool {
	if n < h.n {
		h.Give(h.n - n)
		return true
	}
	return h.Take(n - h.n)
}

// AtLeast takes what is missing to n bytes, and returns false if there is no room for that.
func (h *Held) AtLeast(n int) bool { return n <= h.n || h.Take(n-h.n) }

// End gives back everything. Nothing counts from then on.
func (h *Held) End() {
	h.UpTo(0)
	h.budget = nil
}

// The waits between two attempts to take what there was no room for.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 2 * time.Second
)

// A Retry is a series of waits for room in a Budget. The zero value is at the start.
type Retry time.Duration

// Next returns how long to wait before the next attempt.
func (r *Retry) Next() time.Duration {
	wait := max(firstRetry, time.Duration(*r))
	*r = Retry(min(2*wait, lastRetry))
	return wait
}
