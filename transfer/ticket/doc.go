// Package ticket is the text that says where a tree of files can be fetched, and gives the right to it. It is pure: no I/O, no
// goroutine.
//
//	text, err := ticket.Ticket{
//		Sources: []peer.AddrInfo{{ID: h.ID(), Addrs: ticket.Choose(h.Addrs())}},
//		Root:    ref.Root,
//		Token:   ref.Token,
//	}.Encode() // plt1af3q...
//
//	t, err := ticket.Parse(pasted) // ErrNotTicket, ErrDamaged, ErrVersion, ErrMalformed
//
// # Text
//
// A ticket is "plt1" and lower-case base32. A double click selects it whole, and no chat program takes a part of it for markup, a link
// or an emoji. Base58 would be a seventh shorter, but its letters differ by case alone, which what corrects spelling changes, and a QR code
// has to hold it as bytes: of base32 in capitals, which Parse takes as well, it holds eight characters in the room of six such ones
// (spec 3.1).
//
// # Secrets
//
// Who has the ticket may fetch, if the token still holds: a Ticket has no String method, so that none gets into a log unasked.
//
// # Limits
//
// A ticket has at most 16 sources, and a source at most 8 addresses of 255 bytes each. With one source and four
// addresses it has about 250 characters.
//
// # Stability
//
// The bytes are those of SPEC.md, version 1.
package ticket
