package diagnostics

import (
	"context"

	"github.com/peerlane/peerlane"
)

// An Explanation says why a peer can or cannot be reached. It is a value, JSON, and with String a text of a few lines.
type Explanation = peerlane.Explanation

// Explain opens a session on tag at a peer, given as the text of its Peer ID, and says why that can or cannot be done. If there is a session
// already, Explain measures its round trip, and opens none. It keeps nothing open, and does not retry. It waits until each address has answered or
// failed, which takes libp2p up to a minute; when ctx ends, Explain says what it knows by then, and the Explanation is Partial. It never returns nil.
//
// errors.Is finds the sentinels of package peerlane in an Explanation of a peer that was not reached.
func Explain(ctx context.Context, c *peerlane.Client, peer, tag string) *Explanation {
	if ctx == nil {
		ctx = context.Background()
	}
	return c.ExplainForDiagnostics(ctx, peer, tag)
}
