// Package session is the engine of peerlane: the conversation of two peers on one carrier.
//
// A session carries requests with answers, one-way messages, and shared streams, all over one net.Conn, and opens
// dedicated streams on further ones. It knows nothing of libp2p: whoever owns it hands it connections.
//
//	acceptor, err := session.NewAcceptor(session.AcceptorConfig{Config: session.Config{Mux: mux}})
//	go acceptor.Serve(conn, "alice") // one side
//
//	s, err := session.Dial(ctx, conn, "bob", nil, session.Config{}) // the other
//	reply, err := s.SendWait(ctx, "greet", []byte("hello"))
//
// # Lifetime
//
// A session lives from its hello to Close, to the loss of its carrier, or to the end of a drain. Done is closed then,
// and Err says why. Two goroutines belong to it: the reader (the one that called Serve, on the accepting side) and the
// writer; a handler runs in a goroutine of its own.
//
//	hello ──> open ──GOAWAY──> draining ──idle──> closed
//	            └──────carrier lost, Close────────^
//
// # Cancellation
//
// Every call takes a ctx or honours deadlines. A call whose ctx ends returns at once and tells the peer, whose handler's
// ctx ends. What a caller may believe about work that failed is the [Outcome] of its [Error].
//
// # Limits
//
// Everything the peer can make this side hold is bounded: by the limits this side stated in its hello, and by the
// [Quota] that sessions share. A peer that breaks them loses that call, that stream, or the session, and nobody else
// notices.
package session
