package peerlane

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/session"
)

// Row: C4, D21.
func TestEveryStreamErrorCodeOfLibp2pIsExplained(t *testing.T) {
	for code, want := range map[network.StreamErrorCode]struct {
		code    codes.Code
		outcome session.Outcome
		text    string
	}{
		network.StreamNoError:                   {codes.Closed, session.Unknown, "stream reset"},
		network.StreamProtocolNegotiationFailed: {codes.Protocol, session.Rejected, "negotiation failed"},
		network.StreamResourceLimitExceeded:     {codes.Unavailable, session.Rejected, "resource manager"},
		network.StreamRateLimited:               {codes.Unavailable, session.Rejected, "rate limited"},
		network.StreamProtocolViolation:         {codes.Protocol, session.Unknown, "protocol violation"},
		network.StreamSupplanted:                {codes.Closed, session.Unknown, "supplanted"},
		network.StreamGarbageCollected:          {codes.Unavailable, session.Unknown, "trimmed"},
		network.StreamShutdown:                  {codes.GoingAway, session.Unknown, "shut down"},
		network.StreamGated:                     {codes.NotAllowed, session.Rejected, "gater"},
		network.StreamCodeOutOfRange:            {codes.Application, session.Unknown, "stream reset"},
		42:                                      {codes.Application, session.Unknown, "stream reset"},
		resetCode(codes.OK):                     {codes.OK, session.Unknown, "stream reset"},
		resetCode(codes.NotAllowed):             {codes.NotAllowed, session.Rejected, "stream refused"},
		resetCode(codes.Unavailable):            {codes.Unavailable, session.Rejected, "stream refused"},
		resetCode(codes.TooLarge):               {codes.TooLarge, session.Unknown, "stream reset"},
	} {
		for _, remote := range []bool{false, true} {
			err := streamBroken("read", &network.StreamError{ErrorCode: code, Remote: remote})
			require.Equal(t, want.code, err.Code, "code %#x", code)
			require.Equal(t, want.outcome, err.Outcome, "code %#x", code)
			require.Equal(t, remote, err.Remote, "code %#x", code)
			require.ErrorContains(t, err, want.text, "code %#x", code)
			require.ErrorIs(t, err, syscall.ECONNRESET, "code %#x", code)
			var se *network.StreamError
			require.ErrorAs(t, err, &se)
			require.Equal(t, code, se.ErrorCode)
		}
	}
}

func TestEveryConnErrorCodeOfLibp2pIsExplained(t *testing.T) {
	for code, want := range map[network.ConnErrorCode]struct {
		code codes.Code
		text string
	}{
		network.ConnNoError:                   {codes.Closed, "connection closed"},
		network.ConnProtocolNegotiationFailed: {codes.Protocol, "negotiation failed"},
		network.ConnResourceLimitExceeded:     {codes.Unavailable, "resource manager"},
		network.ConnRateLimited:               {codes.Unavailable, "rate limited"},
		network.ConnProtocolViolation:         {codes.Protocol, "protocol violation"},
		network.ConnSupplanted:                {codes.Closed, "supplanted"},
		network.ConnGarbageCollected:          {codes.Unavailable, "trimmed"},
		network.ConnShutdown:                  {codes.GoingAway, "shut down"},
		network.ConnGated:                     {codes.NotAllowed, "gater"},
		network.ConnCodeOutOfRange:            {codes.Closed, "connection closed"},
	} {
		err := streamBroken("read", fmt.Errorf("wrapped: %w", &network.ConnError{ErrorCode: code, Remote: true}))
		require.Equal(t, want.code, err.Code, "code %#x", code)
		require.True(t, err.Remote)
		require.ErrorContains(t, err, want.text, "code %#x", code)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "code %#x", code)
	}
}

func TestABrokenStreamMatchesNothingElse(t *testing.T) {
	for name, cause := range map[string]error{
		"eof":           io.EOF,
		"closed":        net.ErrClosed,
		"deadline":      os.ErrDeadlineExceeded,
		"hop reset":     &network.StreamError{TransportError: &network.StreamError{ErrorCode: 7}},
		"wrapped reset": fmt.Errorf("%w: %w", network.ErrReset, &network.StreamError{ErrorCode: 7}),
	} {
		err := streamBroken("read", fmt.Errorf("deep down: %w", cause))
		require.ErrorIs(t, err, syscall.ECONNRESET, name)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, name)
		require.False(t, err.Timeout(), name)
		for _, not := range []error{io.EOF, net.ErrClosed, os.ErrDeadlineExceeded} {
			require.NotErrorIs(t, err, not, name)
		}
		var se *network.StreamError
		require.False(t, errors.As(err, &se), name)
	}
}

func TestSentinelsMatchTheirFamily(t *testing.T) {
	require.ErrorIs(t, ErrNotServed, ErrNotFound)
	require.ErrorIs(t, invalidf("field: %w", io.EOF), ErrInvalid)
	require.ErrorIs(t, invalidf("field: %w", io.EOF), io.EOF)
}
