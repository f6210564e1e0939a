package peerlane

import (
	"context"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/session"
)

// ErrUndecodable is session.ErrUndecodable.
var ErrUndecodable = session.ErrUndecodable

// Call calls tag at the peer with req and returns its answer. It is Client.Send with values in place of bytes: codec encodes the request and
// decodes the answer. The peer serves the tag with HandleTyped and the same codec, or with a Handler that knows its bytes. Packages codec/json,
// codec/cbor and codec/protobuf have codecs.
//
// The errors are those of Send, and an *Error that matches
//   - ErrInvalid, with outcome NotSent, if req cannot be encoded,
//   - ErrUndecodable, with Remote, codes.Undecodable and outcome Rejected, if the peer cannot decode the request,
//   - ErrUndecodable, without Remote and with outcome Delivered, if this side cannot decode the answer.
func Call[Resp, Req any](ctx context.Context, c *Client, pid peer.ID, tag protocol.ID, codec session.Codec, req Req) (Resp, error) {
	var resp Resp
	switch {
	case c == nil:
		return resp, invalidf("client: nil")
	case codec == nil:
		return resp, invalidf("codec: nil")
	}
	request, err := codec.Marshal(req)
	if err != nil {
		return resp, &Error{Op: "encode", Peer: pid.String(), Link: string(tag), Outcome: session.NotSent, Err: fmt.Errorf("%w: %w", ErrInvalid, err)}
	}
	response, err := c.Send(ctx, pid, tag, request)
	if err != nil {
		return resp, err
	}
	if err := codec.Unmarshal(response, &resp); err != nil {
		var none Resp // and not half of one
		return none, &Error{Op: "decode", Peer: pid.String(), Link: string(tag), Outcome: session.Delivered,
			Err: fmt.Errorf("answer %w: %w", ErrUndecodable, err)}
	}
	return resp, nil
}

// HandleTyped is Server.Handle with values in place of bytes, for callers that use Call with the same codec. A request that cannot be decoded
// is refused with codes.Undecodable, and fn is not called. If the answer of fn cannot be encoded, the caller gets codes.Internal. Request.Value
// is the request as it came.
func HandleTyped[Req, Resp any](s *Server, tag protocol.ID, codec session.Codec,
	fn func(ctx context.Context, r *Request, req Req) (Resp, error)) error {
	switch {
	case s == nil:
		return invalidf("server: nil")
	case codec == nil:
		return invalidf("codec: nil")
	case fn == nil:
		return invalidf("fn: nil")
	}
	return s.Handle(tag, func(ctx context.Context, r *Request) ([]byte, error) {
		var req Req
		if err := codec.Unmarshal(r.Value, &req); err != nil {
			return nil, &Error{Op: "decode", Code: codes.Undecodable, Text: err.Error()}
		}
		resp, err := fn(ctx, r, req)
		if err != nil {
			return nil, err
		}
		response, err := codec.Marshal(resp)
		if err != nil {
			return nil, &Error{Op: "encode", Code: codes.Internal, Text: "the answer cannot be encoded: " + err.Error()}
		}
		return response, nil
	})
}
