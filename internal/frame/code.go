package frame

import "github.com/peerlane/peerlane/codes"

// CodeBase is added to a codes.Code to make the libp2p StreamErrorCode of a reset: libp2p keeps 0x1001..0x1008 and what lies
// around it for itself.
const CodeBase uint32 = 0x504C0000 // "PL"

// LastWord is added to the codes.Code that a carrier of a resumable stream is reset with when the stream ends with it; without it
// the carrier alone has ended, and the stream goes on over another (spec 5.11).
const LastWord codes.Code = 0x10000
