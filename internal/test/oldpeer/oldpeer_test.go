package oldpeer

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/internal/test/testnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tag = "/old/1.0.0"

// Row: P12, P13.
func TestTheOldWireIsTheseBytes(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := Serve(b, tag, func(request []byte) ([]byte, error) {
		if len(request) == 0 {
			return nil, errors.New("denied")
		}
		return append([]byte("re:"), request...), nil
	})
	defer s.Close()
	for _, call := range []struct{ request, response string }{
		{"\x00\x00\x00\x02hi", "\x00\x00\x00\x05re:hi"},
		{"\x00\x00\x00\x00", "\x00\x00\x00\x1a处理请求失败: denied"},
	} {
		stream, err := a.NewStream(t.Context(), b.ID(), tag)
		require.NoError(t, err)
		_, err = stream.Write([]byte(call.request))
		require.NoError(t, err)
		require.NoError(t, stream.SetReadDeadline(time.Now().Add(10*time.Second)))
		got, err := io.ReadAll(stream) // to the end: the server closes
		require.NoError(t, err)
		require.Equal(t, call.response, string(got))
		require.NoError(t, stream.Close())
	}
}

// Row: D1.
func TestTheOldClientLeavesItsStreamsOpen(t *testing.T) {
	a, b := testnet.Pair(t, testnet.QUIC)
	s := Serve(b, tag, func(request []byte) ([]byte, error) { return request, nil })
	defer s.Close()
	for range 5 {
		got, err := (&Client{Host: a}).Send(t.Context(), b.ID(), tag, []byte("x"))
		require.NoError(t, err)
		require.Equal(t, "x", string(got))
	}
	open := 0
	for _, c := range a.Network().Conns() {
		for _, stream := range c.GetStreams() {
			if stream.Protocol() == tag {
				open++
			}
		}
	}
	require.Equal(t, 5, open)
}
