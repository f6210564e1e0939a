package peerlanetest

import (
	"net"
	"time"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// LinkOptions are the properties of a Link.
type LinkOptions struct {
	// Delay is the time from a Write until its bytes can be read. If zero, none.
	Delay time.Duration
	// Rate is how many bytes per second each direction takes. If zero, there is no limit.
	Rate int
	// Buffer is how many bytes each direction takes without a reader. If zero, 64 KiB.
	Buffer int
	// CutDelivers makes CutAfter deliver what was written before the cut; the error comes after it. If false, what was not read by
	// then is lost.
	CutDelivers bool
}

// A Link is a connection in memory, which breaks on command. Its two ends are net.Conns with the errors of TCP. Its methods may be
// called at any time and from any goroutine. It works in a testing/synctest bubble, has no goroutine, and need not be closed.
type Link struct{ link *faultnet.Link }

// NewLink returns a link. nil options are the zero ones.
func NewLink(o *LinkOptions) *Link {
	if o == nil {
		o = &LinkOptions{}
	}
	return &Link{faultnet.NewLink(faultnet.LinkOptions{Delay: o.Delay, Rate: o.Rate, Buffer: o.Buffer, CutDelivers: o.CutDelivers})}
}

// Ends returns the two ends, always the same. Both have a CloseWrite method.
func (l *Link) Ends() (a, b net.Conn) { return l.link.Ends() }

// Cut breaks the link for good: what was not read is lost, and every Read and Write fails with syscall.ECONNRESET.
func (l *Link) Cut() { l.link.Cut() }

// CutAfter cuts the link when n more bytes have been written, both directions together. The Write that wanted more returns how much of
// it was written, and syscall.ECONNRESET. A later call replaces an earlier one.
func (l *Link) CutAfter(n int64) { l.link.CutAfter(n) }

// Freeze holds all that was written and not read, until Thaw. Writes succeed until the buffer is full.
func (l *Link) Freeze() { l.link.Freeze() }

// Thaw ends Freeze.
func (l *Link) Thaw() { l.link.Thaw() }

// Vanish makes the link silent for good: what was not read is lost, and nothing more arrives, without an error.
func (l *Link) Vanish() { l.link.Vanish() }

// SetDelay sets the delay of the bytes that are written from now on. They do not overtake earlier ones.
func (l *Link) SetDelay(d time.Duration) { l.link.SetDelay(d) }
