package frame

import "strconv"

// A Code says why a hello, call, message or stream was refused or ended. It travels in REFUSE, ERROR, RESET and
// GOAWAY (spec 9) and, raised by CodeBase, as the libp2p stream error code of a reset carrier.
type Code uint32

// The codes of version 1 (spec 9). A peer may send a number that is not listed; it is kept and shown as it came.
const (
	CodeOK            Code = 0  // no error; as a reset code: closed on purpose
	CodeInternal      Code = 1  // the handler panicked or the peer found a bug in itself
	CodeApplication   Code = 2  // the handler returned an error; the text is the application's
	CodeNotFound      Code = 3  // no such link, stream name or session
	CodeUnavailable   Code = 4  // over a limit of concurrency or memory for now; retry after the hint
	CodeTooLarge      Code = 5  // over the receiver's size limit
	CodeProtocol      Code = 6  // the bytes break the protocol; the carrier ends
	CodeVersion       Code = 7  // no common protocol version
	CodeUnsupported   Code = 8  // a critical capability, codec or frame type is not known
	CodeCancelled     Code = 9  // the caller gave up
	CodeTimeout       Code = 10 // a deadline of this side passed
	CodePSKRequired   Code = 11 // this side wants a pre-shared key and the hello had none
	CodePSKMismatch   Code = 12 // the key id is unknown or the proof does not verify
	CodePSKReplayed   Code = 13 // this hello has been seen before
	CodePSKUnexpected Code = 14 // the hello had a pre-shared key and this side has none
	CodeNotAllowed    Code = 15 // admission refused this peer
	CodeGoingAway     Code = 16 // draining: open no new work here
	CodeNoReply       Code = 17 // the handler returned without replying
	CodeClosed        Code = 18 // the other side closed
	CodeReadClosed    Code = 19 // the reader of a stream has closed its side
	CodeFlowControl   Code = 20 // more was sent than there was credit for
	CodePSKTampered   Code = 21 // the key is known, but the hello was changed on the way
	CodeReplyTooLarge Code = 22 // the handler ran; its reply is over the caller's size limit
	CodeUnread        Code = 23 // the reader of a stream closed its side and dropped bytes that it had not read
)

// CodeBase is added to a Code to make the libp2p StreamErrorCode of a reset: libp2p keeps 0x1001..0x1008 and what lies
// around it for itself.
const CodeBase uint32 = 0x504C0000 // "PL"

// LastWord is added to the Code that a carrier of a resumable stream is reset with when the stream ends with it; without it
// the carrier alone has ended, and the stream goes on over another (spec 5.11).
const LastWord Code = 0x10000

var codeNames = [...]string{
	CodeOK:            "ok",
	CodeInternal:      "internal",
	CodeApplication:   "application",
	CodeNotFound:      "not found",
	CodeUnavailable:   "unavailable",
	CodeTooLarge:      "too large",
	CodeProtocol:      "protocol error",
	CodeVersion:       "version mismatch",
	CodeUnsupported:   "unsupported",
	CodeCancelled:     "cancelled",
	CodeTimeout:       "timeout",
	CodePSKRequired:   "psk required",
	CodePSKMismatch:   "psk mismatch",
	CodePSKReplayed:   "psk replayed",
	CodePSKUnexpected: "psk unexpected",
	CodeNotAllowed:    "not allowed",
	CodeGoingAway:     "going away",
	CodeNoReply:       "no reply",
	CodeClosed:        "closed",
	CodeReadClosed:    "read side closed",
	CodeFlowControl:   "flow control",
	CodePSKTampered:   "psk tampered",
	CodeReplyTooLarge: "reply too large",
	CodeUnread:        "closed without reading the rest",
}

// String returns the code's name, or "code N" for one this version does not know.
func (c Code) String() string {
	if c < Code(len(codeNames)) { // not int(c): on 32 bits the upper half is negative
		return codeNames[c]
	}
	return "code " + strconv.FormatUint(uint64(c), 10)
}
