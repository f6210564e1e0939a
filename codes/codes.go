// Package codes has the reasons that peers give each other for refusing or ending a call, message, stream or session.
//
//	var e *peerlane.Error
//	if errors.As(err, &e) && e.Code == codes.NotFound {
//		// the peer has no such link
//	}
//
// Whether the work ran at all is the error's Outcome, not its Code.
package codes

import "strconv"

// A Code says why a hello, call, message or stream was refused or ended. It is the Code of a peerlane.Error. It travels in the frames
// REFUSE, ERROR, RESET and GOAWAY (spec 9) and, with 0x504C0000 added, as the libp2p stream error code of a reset carrier.
type Code uint32

// The codes of version 1 (spec 9). A peer may send a number that is not listed; it is kept and shown as it came.
const (
	OK            Code = 0  // no error; as a reset code: closed on purpose
	Internal      Code = 1  // the handler panicked or the peer found a bug in itself
	Application   Code = 2  // the handler returned an error; the text is the application's
	NotFound      Code = 3  // no such link, stream name or session
	Unavailable   Code = 4  // over a limit of concurrency or memory for now; retry after the hint
	TooLarge      Code = 5  // over the receiver's size limit
	Protocol      Code = 6  // the bytes break the protocol; the carrier ends
	Version       Code = 7  // no common protocol version
	Unsupported   Code = 8  // a critical capability, codec or frame type is not known
	Cancelled     Code = 9  // the caller gave up
	Timeout       Code = 10 // a deadline of this side passed
	PSKRequired   Code = 11 // this side wants a pre-shared key and the hello had none
	PSKMismatch   Code = 12 // the key id is unknown or the proof does not verify
	PSKReplayed   Code = 13 // this hello has been seen before
	PSKUnexpected Code = 14 // the hello had a pre-shared key and this side has none
	NotAllowed    Code = 15 // admission refused this peer, or links and streams are closed to it
	GoingAway     Code = 16 // draining: open no new work here
	NoReply       Code = 17 // the handler returned without replying
	Closed        Code = 18 // the other side closed
	ReadClosed    Code = 19 // the reader of a stream has closed its side
	FlowControl   Code = 20 // more was sent than there was credit for
	PSKTampered   Code = 21 // the key is known, but the hello was changed on the way
	ReplyTooLarge Code = 22 // the handler ran; its reply is over the caller's size limit
	Unread        Code = 23 // the reader of a stream closed its side and dropped bytes that it had not read
	Undecodable   Code = 24 // the value of a request cannot be decoded as the type that its handler takes
)

var names = [...]string{
	OK:            "ok",
	Internal:      "internal",
	Application:   "application",
	NotFound:      "not found",
	Unavailable:   "unavailable",
	TooLarge:      "too large",
	Protocol:      "protocol error",
	Version:       "version mismatch",
	Unsupported:   "unsupported",
	Cancelled:     "cancelled",
	Timeout:       "timeout",
	PSKRequired:   "psk required",
	PSKMismatch:   "psk mismatch",
	PSKReplayed:   "psk replayed",
	PSKUnexpected: "psk unexpected",
	NotAllowed:    "not allowed",
	GoingAway:     "going away",
	NoReply:       "no reply",
	Closed:        "closed",
	ReadClosed:    "read side closed",
	FlowControl:   "flow control",
	PSKTampered:   "psk tampered",
	ReplyTooLarge: "reply too large",
	Unread:        "closed without reading the rest",
	Undecodable:   "undecodable",
}

// String returns the code's name, or "code N" for one this version does not know.
func (c Code) String() string {
	if c < Code(len(names)) { // not int(c): on 32 bits the upper half is negative
		return names[c]
	}
	return "code " + strconv.FormatUint(uint64(c), 10)
}
