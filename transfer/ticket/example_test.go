package ticket_test

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/transfer/ticket"
)

// What one person prints, another one pastes, with what their mail program has done to it.
func Example() {
	id, _ := peer.Decode("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")
	addrs := []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/4001"), ma.StringCast("/ip4/192.0.2.7/tcp/4001")}
	text, err := ticket.Ticket{
		Sources: []peer.AddrInfo{{ID: id, Addrs: ticket.Choose(addrs)}},
		Token:   []byte("secret"),
	}.Encode()
	if err != nil {
		panic(err)
	}
	fmt.Println(text[:4], len(text))

	t, err := ticket.Parse("\"" + text[:76] + "\r\n" + text[76:] + "\"")
	if err != nil {
		panic(err)
	}
	fmt.Println(t.Sources[0].Addrs)

	_, err = ticket.Parse(text[:76])
	fmt.Println(errors.Is(err, ticket.ErrDamaged), err)
	// Output:
	// plt1 147
	// [/ip4/192.0.2.7/tcp/4001]
	// true the ticket is cut off: these are the first 76 of its 147 characters
}
