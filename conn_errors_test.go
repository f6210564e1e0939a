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

	"github.com/peerlane/peerlane/frame"
	"github.com/peerlane/peerlane/session"
)

// Row: C4, D21.
func TestEveryStreamErrorCodeOfLibp2pIsExplained(t *testing.T) {
	for code, want := range map[network.StreamErrorCode]struct {
		code    frame.Code
		outcome session.Outcome
		text    string
	}{
		network.StreamNoError:                   {frame.CodeClosed, session.Unknown, "stream reset"},
		network.StreamProtocolNegotiationFailed: {frame.CodeProtocol, session.Rejected, "negotiation failed"},
		network.StreamResourceLimitExceeded:     {frame.CodeUnavailable, session.Rejected, "resource manager"},
		network.StreamRateLimited:               {frame.CodeUnavailable, session.Rejected, "rate limited"},
		network.StreamProtocolViolation:         {frame.CodeProtocol, session.Unknown, "protocol violation"},
		network.StreamSupplanted:                {frame.CodeClosed, session.Unknown, "supplanted"},
		network.StreamGarbageCollected:          {frame.CodeUnavailable, session.Unknown, "trimmed"},
		network.StreamShutdown:                  {frame.CodeGoingAway, session.Unknown, "shut down"},
		network.StreamGated:                     {frame.CodeNotAllowed, session.Rejected, "gater"},
		network.StreamCodeOutOfRange:            {frame.CodeApplication, session.Unknown, "stream reset"},
		42:                                      {frame.CodeApplication, session.Unknown, "stream reset"},
		resetCode(frame.CodeOK):                 {frame.CodeOK, session.Unknown, "stream reset"},
		resetCode(frame.CodeNotAllowed):         {frame.CodeNotAllowed, session.Rejected, "stream refused"},
		resetCode(frame.CodeUnavailable):        {frame.CodeUnavailable, session.Rejected, "stream refused"},
		resetCode(frame.CodeTooLarge):           {frame.CodeTooLarge, session.Unknown, "stream reset"},
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
		code frame.Code
		text string
	}{
		network.ConnNoError:                   {frame.CodeClosed, "connection closed"},
		network.ConnProtocolNegotiationFailed: {frame.CodeProtocol, "negotiation failed"},
		network.ConnResourceLimitExceeded:     {frame.CodeUnavailable, "resource manager"},
		network.ConnRateLimited:               {frame.CodeUnavailable, "rate limited"},
		network.ConnProtocolViolation:         {frame.CodeProtocol, "protocol violation"},
		network.ConnSupplanted:                {frame.CodeClosed, "supplanted"},
		network.ConnGarbageCollected:          {frame.CodeUnavailable, "trimmed"},
		network.ConnShutdown:                  {frame.CodeGoingAway, "shut down"},
		network.ConnGated:                     {frame.CodeNotAllowed, "gater"},
		network.ConnCodeOutOfRange:            {frame.CodeClosed, "connection closed"},
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
