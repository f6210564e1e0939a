// Command bench measures peerlane's request/response call beside the systems a
// Go application would otherwise use: a hand-written libp2p stream, one libp2p
// stream per call, gRPC-Go, NATS and drpc.
//
//	cd bench && go run . -quick
//	go run . -check                     # five rounds of two seconds, then the floors
//	go run . -only 'peerlane|raw' -json out.json
//	go run . -records                   # feeds of records in place of calls
//	go run . -files                     # transfers of files in place of calls
//
// # Method
//
// All contenders run in one process over loopback and echo one payload. A cell
// is one contender under one load: a warm-up, a garbage collection, then a
// closed loop of callers for a fixed time. A round visits every contender under
// every load, load by load, so that what disturbs the machine disturbs
// neighbouring cells alike; each round starts at another contender. A ratio is
// taken inside each round, and the median over the rounds is reported.
//
// # Correctness
//
// Each request carries its caller and its number. The length and these eight
// bytes are checked on every reply, and every byte on the first reply and each
// 64th one. A wrong reply or an error ends the run with exit status 1.
//
// It is its own module so that gRPC, NATS and drpc stay out of the module graph
// of peerlane's users.
package main
