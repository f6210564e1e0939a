package diagnostics

import (
	"context"

	"github.com/peerlane/peerlane"
)

// An Explanation says why a peer can or cannot be reached. It is a value, JSON, and with String a text of a few lines.
type Explanation = peerlane.Explanation

// Explain reports why a session on tag can or cannot be opened at a peer, which is the text of a Peer ID. It pings a session that is open already.
// Otherwise it opens one, without retries, and closes it. It waits until each address has answered or failed, which takes libp2p up to a minute. If
// ctx ends first, the Explanation is Partial. It is never nil.
//
// errors.Is finds the sentinels of package peerlane in an Explanation of a peer that was not reached.
func Explain(ctx context.Context, c *peerlane.Client, peer, tag string) *Explanation {
	if ctx == nil {
		ctx = context.Background()
	}
	return c.ExplainForDiagnostics(ctx, peer, tag)
}
