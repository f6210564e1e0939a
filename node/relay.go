package node

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

// RelayService makes a host relay connections for others (circuit relay v2). The zero value has libp2p's limits: a relayed connection is
// sufficient to find a direct path, and for little else.
type RelayService struct {
	// Data is how many bytes a relayed connection passes in each direction before it is cut, including libp2p's overhead. If zero, 128 KiB.
	// If negative, there is no limit, and no time limit either. Less than 4 KiB is an error.
	Data int64
	// Duration is how long a relayed connection lasts. If zero, 2 minutes.
	Duration time.Duration
	// Reservations is how many peers can be reached through this host at a time. If zero, 128.
	Reservations int
	// Circuits is how many relayed connections each of them may have at a time. If zero, 16.
	Circuits int
	// Allow lists the peers that can be reached through this host. If nil, all peers; then one IP address may have 8 reservations and one
	// network (ASN) 32. The list does not limit which peers connect to those.
	Allow []peer.ID
}

// relayBuffer is the size of the buffers that copy a relayed connection. libp2p's 2 KiB halve the throughput.
const relayBuffer = 64 << 10

// leastRelayData is the least RelayService.Data: the handshakes of a session take 2 to 4 KiB.
const leastRelayData = 4 << 10

func (r RelayService) validate() error {
	switch {
	case r.Data > 0 && r.Data < leastRelayData:
		return invalidf("RelayService.Data: %d bytes are fewer than the handshakes of a connection take, want at least %d", r.Data, leastRelayData)
	case r.Data < 0 && r.Duration != 0:
		return invalidf("RelayService.Duration: Data has no limit, so there is no time limit either")
	case r.Duration < 0:
		return invalidf("RelayService.Duration: %v is negative", r.Duration)
	case r.Reservations < 0:
		return invalidf("RelayService.Reservations: %d is negative", r.Reservations)
	case r.Circuits < 0:
		return invalidf("RelayService.Circuits: %d is negative", r.Circuits)
	case r.Allow != nil && len(r.Allow) == 0:
		return invalidf("RelayService.Allow: empty; nil allows all peers")
	}
	return nil
}

// serve makes h a relay. libp2p.EnableRelayService would do so some time after the host listens: until then, reservations fail.
func (r RelayService) serve(h host.Host) (*relay.Relay, error) {
	rc := relay.DefaultResources()
	rc.BufferSize = relayBuffer
	if r.Data > 0 {
		rc.Limit.Data = r.Data
	}
	if r.Duration > 0 {
		rc.Limit.Duration = r.Duration
	}
	if r.Data < 0 {
		rc.Limit = nil
	}
	if r.Reservations > 0 {
		rc.MaxReservations = r.Reservations
	}
	if r.Circuits > 0 {
		rc.MaxCircuits = r.Circuits
	}
	opts := []relay.Option{relay.WithResources(rc), relay.WithMetricsTracer(relay.NewMetricsTracer())}
	if r.Allow != nil { // the list is the limit: all its peers may be in one office
		rc.MaxReservationsPerIP, rc.MaxReservationsPerASN = rc.MaxReservations, rc.MaxReservations
		opts = append(opts, relay.WithResources(rc), relay.WithACL(allowed(r.Allow)))
	}
	return relay.New(h, opts...)
}

// allowed is the set of peers that may make reservations.
type allowed []peer.ID

func (a allowed) AllowReserve(p peer.ID, _ ma.Multiaddr) bool { return slices.Contains(a, p) }

func (a allowed) AllowConnect(peer.ID, ma.Multiaddr, peer.ID) bool { return true }
