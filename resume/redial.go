package resume

import "time"

// A Backoff is the wait between attempts: Min after the first failure, then twice as long each time, up to Max. Each wait is shortened at
// random by up to a half, so that many sides that lost the same peer do not return together.
//
// Options reject a negative Backoff, and a Max that is set and less than Min.
type Backoff struct {
	Min time.Duration // if zero, 50 ms, or Max if that is less
	Max time.Duration // if zero, 5 s, or Min if that is more
}
