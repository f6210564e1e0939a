// Package chaos tests that nothing is lost silently between two real libp2p hosts, whatever happens: all lanes at once, in both directions,
// over TCP and QUIC, with networks that break, and with ends of both sides in any order. It is session.TestNothingIsLostSilentlyAtTheEnd
// with sockets in place of virtual time, and with the lanes that stand on a session.
//
//	go test ./internal/test/chaos                                    # a few fresh seeds
//	go test ./internal/test/chaos -args -chaos.seed=N -chaos.runs=1  # one of them again
//	go test ./internal/test/chaos -timeout 0 -v -args -chaos.for=1h
//
// A run is what its seed decides: the plan, what each worker does, which faults and ends there are, and after how much work. Which of the
// two sides comes first in between is the machine's, so that a seed that failed may have to be repeated.
package chaos
