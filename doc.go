// Package peerlane lets programs talk to each other directly: conns, calls, messages and streams between libp2p peers, each
// addressed by its Peer ID.
//
// There are three faces. Conns are net.Conn and net.Listener over libp2p streams:
//
//	l, err := peerlane.Listen(h, "/chat/1.0.0") // h: a host.Host of libp2p, as package node makes one
//	conn, err := peerlane.Dial(ctx, h, pid, "/chat/1.0.0")
//
// Calls are requests with answers, many over one stream:
//
//	server, err := peerlane.NewServer(h, nil)
//	err = server.Start("/sum/1.0.0", sum) // sum: func(request []byte) (response []byte, err error)
//	client, err := peerlane.NewClient(h, nil)
//	response, err := client.Send(ctx, pid, "/sum/1.0.0", request)
//
// Sessions carry messages to named links, calls and streams side by side; see package session. Both sides say whom they admit:
//
//	s, err := client.Connect(ctx, pid, "/chat/1.0.0")
//	reply, err := s.SendWait(ctx, "greet", []byte("alice"))
//
// # Verbs
//
//   - [Dial], [Listen]: a conn.
//   - [Client.Send]: a call, on a session that the client keeps. [Server.Start] and [Server.Handle] answer it.
//   - [Client.Connect], [Client.Keep]: a session, once or held open. [Server.Listen] serves sessions, as Start and Handle do.
//   - [session.Session.Call]: a call on a session at hand.
//   - [session.Session.Send]: a one-way message to a link. [session.Session.Flush] waits until the peer has handled it.
//   - [session.Session.SendWait]: a message to a link, and its reply. [Server.SetLink] handles both kinds.
//   - [session.Session.OpenStream]: a stream. [Server.SetStream] handles it.
//   - Close: the end in order. Abort, and Reset of a stream: the end at once. Stop and Shutdown: a server's.
//
// # Lifetime
//
// A host is the caller's: nothing here closes it. A [Server] lives until Stop or Shutdown, a [Client] until Close; after
// that nothing of them is left: no goroutine, no stream, no handler. A conn of [Dial] or a [Listener] is the caller's.
//
// A session outlives the connection it runs on: the side that dialed opens another, and both go on where they were. A
// negative ResumeWindow in [ClientConfig] or [ServerConfig] ends it with its connection. A conn of [Dial] ends
// with its connection, and so does a dedicated stream unless it is opened as resumable.
//
// # Cancellation
//
// Every call takes a ctx or honours deadlines, and returns at once when it ends. The other side's handler learns of it by
// its own ctx. An *[Error] says by its Outcome what may have happened at the peer.
//
// # Limits
//
// All limits are finite by default and stated with their options. Over a relay that cuts connections nothing runs unless
// the [PathPolicy] allows it.
//
// libp2p's default resource manager is enough for any number of calls, messages and shared streams, which use one stream
// per peer and tag. Conns and dedicated streams are a libp2p stream each, of which it gives one peer 64 on a tag, and 4
// more for each 8 GiB of memory. [Dial] waits for one of this host's conns to end where there are no more, and fails with
// [ErrUnavailable] when its ctx ends. An http.Transport should set MaxIdleConnsPerHost to the number of its callers, or it
// closes most of its conns after one request. The ConnsPerPeer option of package node raises the limit of a tag.
//
// # Security
//
// libp2p authenticates both Peer IDs and encrypts. [UseModernPSKServer] and [UseModernPSKClient] add a pre-shared key on
// every transport. Start and Handle answer the calls of every peer that libp2p lets in, as pointsub does, unless there is
// a key or AllowPeers. Links, streams and lanes are open only where there is a key, AllowPeers, or AdmitAll, which Listen
// wants too; to others they are refused with [ErrNotAllowed]. [Server.SetLink] and its siblings are for all tags of a
// server, [Server.Tag] for one.
//
// # Stability
//
// The wire is versioned: docs/PROTOCOL.md. Before 1.0 the Go API may change with a note in CHANGELOG.md; the names that
// pointsub v0.0.2 and gostream share with this package will not.
package peerlane
