// Package frame is the codec of the notify frame protocol: pure encoding and decoding, no policy and no goroutine.
//
// A carrier begins with one [Hello] each way and then carries frames: a 13-byte [Header] and a payload of at most
// [MaxPayload] bytes. docs/PROTOCOL.md is the numbered specification; constants here cite its sections.
//
//	b = frame.AppendHeader(b, frame.Header{Type: frame.TypePing, ID: 7})
//	r := frame.NewReader(conn, nil)
//	h, payload, err := r.Next()
//
// # Lifetime
//
// A payload returned by [Reader.Next] is valid until the next call of Next. Consume functions return slices of their
// input and copy nothing.
//
// # Limits
//
// Every length is checked against its cap before a byte is reserved for it. A Reader's buffer grows only when it is full
// of bytes that have arrived, so it never holds more than twice what was received.
//
// # Stability
//
// Numbers are never reused. Frame types from 0x80 up, and hello fields with odd ids, are optional: a reader that does not
// know them skips them. All others are critical: a reader that does not know them ends the carrier.
package frame
