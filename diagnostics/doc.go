// Package diagnostics shows what clients and servers are doing, and why a peer is not reached, as values for programs and as JSON.
//
//	snapshot := diagnostics.OfServer(server)
//	for _, s := range snapshot.Sessions {
//		fmt.Println(s.Peer, s.State, s.Path, s.RTT, s.BytesIn, s.BytesOut)
//	}
//
// OfClient and OfServer show the sessions of one Client or Server with all that runs on them, its limits, and why its last sessions ended
// or were refused. Summary adds up several of them, and shows the process.
//
// Explain opens a session at a peer, and reports why that can or cannot be done:
//
//	why := diagnostics.Explain(ctx, client, pid.String(), "/chat/1.0.0")
//	fmt.Print(why.String())
//
// A snapshot stops no traffic. It reads one session at a time, and holds the session's lock for some microseconds, as every call on the
// session does. The figures of one session and its streams are of the same moment; those of another session, or of a lane on it, may be a
// little later. No call takes a lock or allocates for this package.
//
// Everything is sorted, so that two snapshots of the same state are equal: sessions by peer, tag and age, what runs on a session by age.
//
// # JSON
//
// Each snapshot has a version, which is Version. Within a version, fields are only added. Times are as in RFC 3339, in UTC; a time that
// has not come is left out, and so is an empty list. Durations are numbers of milliseconds, which the names of their fields say: rtt_ms.
// Sizes are in bytes. Peers are Peer IDs in their text form. A snapshot that was marshaled can be unmarshaled.
//
// Names, tags, agents and the texts of errors may come from the peer. Escape them before you show them in a page.
package diagnostics
