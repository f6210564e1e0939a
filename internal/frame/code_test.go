package frame

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
)

// libp2p's own stream error codes are 0x1001..0x1008; no code of ours, known or not yet, comes near them. Row: C4.
func TestResetCodesStayClearOfLibp2p(t *testing.T) {
	require.Equal(t, []byte("PL\x00\x00"), binary.BigEndian.AppendUint32(nil, CodeBase))
	require.Less(t, uint32(codes.Unread), uint32(1<<16), "a code runs into the base")
}
