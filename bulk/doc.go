// Package bulk carries many bytes between two peers: lanes, on the session's connection or beside it.
//
//	l, err := bulk.Open(ctx, s, "backup", &bulk.Options{Mode: bulk.Dedicated})
//	_, err = io.Copy(l, file)
//	err = l.CloseWrite()                        // the peer reads io.EOF
//	answer, err := io.ReadAll(l)
//
//	bulk.Handle(server, "backup", nil, func(l *bulk.Lane) {
//		n, err := io.Copy(store, l)
//		fmt.Fprintln(l, n, err)
//	})
//
// A Lane is a net.Conn with half close, an abort that tells the peer a code, an optional rate and optional compression.
//
// # What dedicated promises
//
// A shared lane is a stream on the session's carrier. It has a window of its own, so that nobody who does not read holds up others; it
// takes its turn with them; and it outlives its carrier as the session does. Calls on its session stay quick beside it: it leaves a short
// queue in the connection, and while there are calls a shorter one yet.
//
// A dedicated lane is libp2p streams of its own, one or several strands. Each has its own flow control, and the session's writer is not
// in its way. It is no second connection: over TCP it shares the losses and the order of everything else between the two peers, over QUIC
// the congestion window. It does not outlive its connection, and stays there when the session moves to a better one: Lane.Stale reports
// that. If the peer or the network refuses a dedicated stream, the lane is a shared one, and its Snapshot says so, and why. Several
// strands help where the window of one stream is the bound.
//
// On a limited connection, as a relay's is that is cut after some bytes, no dedicated lane is opened, but a shared one: it outlives the
// connection. It waits with what it writes until the session is on another connection, unless Options.AllowLimited is set.
//
// # Lifetime
//
// A lane ends when both sides have ended their direction, by Close, by Abort, or with what carries it. Who has opened it closes it; the
// one that Handle serves is closed when its function returns, and aborted when that panics or ends its goroutine. Close waits until what
// was written is with the peer, and says that this is not known when nothing moves within 5 s, or the session's CloseTimeout; Abort
// drops it.
//
// # Cancellation
//
// Open has a ctx. A Lane has the deadlines of a net.Conn, which bound the wait for the rate too. A Write that has ended early has
// returned how many bytes the lane has taken, and those arrive.
//
// # Limits
//
// 16 strands. A lane that is plain keeps nothing. One in blocks has blocks of 256 KiB at most: each way it keeps two for each strand and
// one more, compressed a third for each strand, whatever the peer does. How many lanes there are, the session's MaxStreams bounds.
//
// # Stability
//
// The bytes are in SPEC.md. Compression and the number of strands are agreed on when a lane opens.
package bulk
