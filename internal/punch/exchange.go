package punch

import (
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch/pb"
	"github.com/libp2p/go-msgio/pbio"
	ma "github.com/multiformats/go-multiaddr"
)

// Protocol is spoken between two services. Its messages are those of DCUtR. Either side may begin.
const Protocol = "/peerlane/punch/1.0.0"

// wideProtocol is Protocol for an attempt in which both sides punch many holes, if one does not do.
const wideProtocol = "/peerlane/punch-wide/1.0.0"

// dcutr is the protocol of libp2p, in which the side begins that the relayed connection came in at.
const dcutr = holepunch.Protocol

const (
	maxMessage   = 4 << 10
	maxAddresses = 16               // of a peer that are dialed
	exchangeTime = 10 * time.Second // for the three messages
)

var errNoAddress = errors.New("punch: no address of this host is known that others can dial")

// A meeting is what both sides know after an exchange: where the other one is, and when to dial it.
type meeting struct {
	addrs  []ma.Multiaddr
	client bool          // this side has the client's part of the handshake
	wait   time.Duration // until the other side dials too
}

// begin makes the exchange from the side that begins it.
func begin(stream network.Stream, own []ma.Multiaddr) (meeting, error) {
	if len(own) == 0 {
		return meeting{}, errNoAddress
	}
	if err := stream.SetDeadline(time.Now().Add(exchangeTime)); err != nil {
		return meeting{}, err
	}
	w, r := pbio.NewDelimitedWriter(stream), pbio.NewDelimitedReader(stream, maxMessage)
	at := time.Now()
	if err := w.WriteMsg(connectMessage(own)); err != nil {
		return meeting{}, err
	}
	addrs, err := readConnect(r, stream.Conn().RemoteMultiaddr())
	if err != nil {
		return meeting{}, err
	}
	trip := time.Since(at)
	if err := w.WriteMsg(&pb.HolePunch{Type: pb.HolePunch_SYNC.Enum()}); err != nil {
		return meeting{}, err
	}
	return meeting{addrs: addrs, wait: trip / 2}, nil
}

// answer makes the exchange from the other side. It calls own after the peer's message has arrived.
func answer(stream network.Stream, own func() []ma.Multiaddr) (meeting, error) {
	if err := stream.SetDeadline(time.Now().Add(exchangeTime)); err != nil {
		return meeting{}, err
	}
	w, r := pbio.NewDelimitedWriter(stream), pbio.NewDelimitedReader(stream, maxMessage)
	addrs, err := readConnect(r, stream.Conn().RemoteMultiaddr())
	if err != nil {
		return meeting{}, err
	}
	mine := own()
	if len(mine) == 0 {
		return meeting{}, errNoAddress
	}
	if err := w.WriteMsg(connectMessage(mine)); err != nil {
		return meeting{}, err
	}
	var sync pb.HolePunch
	if err := r.ReadMsg(&sync); err != nil {
		return meeting{}, err
	}
	if sync.GetType() != pb.HolePunch_SYNC {
		return meeting{}, fmt.Errorf("punch: the peer sent %v, want SYNC", sync.GetType())
	}
	return meeting{addrs: addrs, client: true}, nil
}

func connectMessage(addrs []ma.Multiaddr) *pb.HolePunch {
	m := &pb.HolePunch{Type: pb.HolePunch_CONNECT.Enum()}
	for _, a := range addrs[:min(len(addrs), maxAddresses)] {
		m.ObsAddrs = append(m.ObsAddrs, a.Bytes())
	}
	return m
}

// readConnect returns the addresses of the peer that are dialed. relay is the address of the relay.
func readConnect(r pbio.Reader, relay ma.Multiaddr) ([]ma.Multiaddr, error) {
	var m pb.HolePunch
	if err := r.ReadMsg(&m); err != nil {
		return nil, err
	}
	if m.GetType() != pb.HolePunch_CONNECT {
		return nil, fmt.Errorf("punch: the peer sent %v, want CONNECT", m.GetType())
	}
	var addrs []ma.Multiaddr
	for _, b := range m.ObsAddrs {
		a, err := ma.NewMultiaddrBytes(b)
		if err != nil {
			continue
		}
		addrs = append(addrs, a)
	}
	if addrs = dialable(addrs, relay); len(addrs) == 0 {
		return nil, errors.New("punch: the peer has sent no address that can be dialed")
	}
	return addrs, nil
}
