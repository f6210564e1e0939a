// Package resume gives a net.Conn that outlives the connections it runs on.
//
//	l, err := resume.NewListener(ln, nil) // Accept returns net.Conns; ln: any net.Listener
//
//	conn, err := resume.Dial(func(ctx context.Context) (net.Conn, error) {
//		var d net.Dialer
//		return d.DialContext(ctx, "tcp", "example.org:7000")
//	}, nil)
//
// What conn runs on is a carrier: any net.Conn whose Close ends its Reads and Writes. When a carrier fails, or falls silent,
// the dialing side dials again and both sides go on where they were: each byte arrives once and in order. [Conn.Reconnect]
// replaces a carrier that lives, for a better one, and nothing is sent twice. SPEC.md in this folder is the wire format.
//
// # What it promises
//
// Write never drops: it waits when the window of either side is full, and what it has taken arrives, unless the Conn is lost.
// A loss is [ErrLost] and never io.EOF; io.EOF is the other side's Close or CloseWrite, which is told at once. What a hostile
// peer claims is checked before anything is reserved for it, and ends in [ErrProtocol].
//
// # What it does not promise
//
// It adds no secrecy and no authentication. Over a carrier that others can read, whoever sees the 128 bit id of a Conn can
// take it over; over TLS, a libp2p stream or a sealed conn of package psk the id is worth nothing to third parties. A Conn does
// not survive the process of either side. After a loss nobody knows how much of what was under way has arrived.
//
// # Lifetime
//
// A Conn that is without a carrier for Options.ResumeWindow, the smaller one of both sides, is lost, on both sides and without a
// word between them, and everything of it is freed. Close does not wait: what was written goes on to be delivered for
// Options.CloseTimeout at most, and [Conn.Done] tells when that has ended; a program that exits before may lose it. A Conn has
// two goroutines, both of which end before Done. Close of a [Listener] leaves accepted Conns alive as long as their
// carriers are: keep it for as long as they are to be resumed.
//
// # Cancellation
//
// Deadlines end a Read or a Write, and never touch the carrier or the Conn. The context of [DialContext] is for the first
// carrier only. No other method waits, whatever the network does.
//
// # Limits
//
// Options.Window bounds what a Conn keeps each way: what was written and is not acknowledged, and what was received and is not
// read. An idle Conn of which nothing is kept holds about 10 KiB with a carrier and 5 KiB without, its goroutines included. A
// detached one holds what it keeps, up to two windows, which chunks of 136 KiB can make twice as much when all Writes have
// some 70 KiB; so with the default of 1 MiB the 1024 Conns that a Listener keeps detached may hold 2 GiB. Lower Window or
// MaxDetached where that is too much. A Listener listens to 256 hellos at a time and gives up the oldest when there are more.
//
// # Stability
//
// The wire format is version 1, and a peer of another version is refused with [ErrVersion]. The exported names stay as long
// as the module's major version does.
package resume
