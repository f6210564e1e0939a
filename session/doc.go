// Package session is the engine of peerlane: the conversation of two peers over one carrier after the other.
//
// A session carries requests with answers, one-way messages, and shared streams, all over one net.Conn at a time, its
// carrier, and opens dedicated streams on further ones. It knows nothing of libp2p: whoever owns it hands it connections.
//
//	acceptor, err := session.NewAcceptor(&session.AcceptorConfig{Config: session.Config{Mux: mux}})
//	go acceptor.Serve(conn, "alice") // one side
//
//	s, err := session.Dial(ctx, conn, "bob", open, nil) // the other; open finds further carriers
//	reply, err := s.SendWait(ctx, "greet", []byte("hello"))
//
// # Lifetime
//
// A session lives from its hello to Close, to the end of a drain, or until it has been without a carrier for the
// ResumeWindow of either side. Done is closed then, and Err says why. Two goroutines belong to it: the reader (the one that
// called Serve, on the accepting side) and the writer; a handler runs in a goroutine of its own.
//
//	hello ──> open ──GOAWAY──> draining ──idle──> closed
//	            └──no carrier in time, Close──────^
//
// # Carriers
//
// When its carrier fails or falls silent, a session is detached. The side that dialed asks its [Opener] for another, and both
// go on where they were: calls, messages and shared streams lose nothing and repeat nothing. Their timeouts go on meanwhile.
// Reconnect moves a session to another carrier while the old one lives. State and Config.OnState tell. A dedicated stream
// ends with its own carrier, unless it is opened as resumable: then it too goes on over another, and moves with the session.
// Without an Opener, or with a negative ResumeWindow on either side, a session ends with its carrier.
//
// # Cancellation
//
// Every call takes a ctx or honours deadlines. A call whose ctx ends returns at once and tells the peer, whose handler's
// ctx ends. What a caller may believe about work that failed is the [Outcome] of its [Error].
//
// # Events
//
// [Hooks] are functions that are called when something happens to a session: OnOpen is first and may refuse it, OnClose is last. An
// [Interceptor] stands before calls and messages. A session has attributes, and functions that are called at its end.
//
// # Limits
//
// Everything the peer can make this side hold is bounded: by the limits this side stated in its hello, and by the
// [Quota] that sessions share. A peer that breaks them loses that call, that stream, or the session, and nobody else
// notices. What a session keeps for another carrier is bounded by ReplayWindow, and in time by ResumeWindow.
package session
