package psk

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever arrives: no panic, and not one byte that the key's holder did not write in that place.
//
// Row: N2
func FuzzConnRead(f *testing.F) {
	authentic := []string{"first", "second", strings.Repeat("third", 20)}
	wire := wireOf(authentic...)
	whole := strings.Join(authentic, "")
	f.Add(wire, 1)
	f.Add(wire[:30], 10)
	f.Add(flip(wire, 100), 4096)
	f.Add(append(bytes.Clone(wire[:23]), wire[:23]...), 64)
	f.Add([]byte{0, 0}, 3)
	f.Add([]byte{0xff, 0xff, 1, 2, 3}, 5)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		c := reading(bytes.NewReader(data).Read)
		p := make([]byte, 1+max(0, size)%(1<<17))
		var got []byte
		var err error
		for err == nil {
			var n int
			n, err = c.Read(p)
			got = append(got, p[:n]...)
		}
		require.True(t, strings.HasPrefix(whole, string(got)), "%q is not authentic", got)
		switch {
		case errors.Is(err, io.EOF):
			require.True(t, bytes.HasPrefix(data, wire), "an end that was not sent")
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, ErrTampered):
			require.False(t, bytes.HasPrefix(data, wire))
		default:
			require.Fail(t, "unexpected error", "%v", err)
		}
	})
}

// Whatever hello arrives: no panic, no admission but for the one true message 1, and nothing remembered of the others.
//
// Row: N1
func FuzzRespond(f *testing.F) {
	key := testKey(f, "one secret")
	server, client := testRing(f, key), testRing(f, key)
	client.random = bytes.NewReader(seq(0x20, dhSize)) // each fuzz worker is a process and must make the same message
	i, err := client.Initiate([]byte("prologue"))
	require.NoError(f, err)
	id := i.KeyID()
	f.Add([]byte("prologue"), id[:], i.Message())
	f.Add([]byte("prologue"), []byte("12345678"), i.Message())
	f.Add([]byte("prologue"), id[:], i.Message()[:47])
	f.Add([]byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, prologue, id, message1 []byte) {
		var name KeyID
		copy(name[:], id)
		r, err := server.Respond(prologue, name, message1)
		genuine := string(prologue) == "prologue" && name == key.ID() && bytes.Equal(message1, i.Message())
		if genuine && errors.Is(err, ErrReplayed) {
			return // the fuzzer tries its seeds more than once
		}
		require.Equal(t, genuine, err == nil, "%v", err)
		require.Equal(t, genuine, r != nil)
		if !genuine {
			require.ErrorIs(t, err, ErrMismatch)
		}
		require.LessOrEqual(t, len(server.seen.young), 1)
	})
}

// Whatever answer arrives: no panic, and no secrets.
//
// Row: N1
func FuzzInitiatorFinish(f *testing.F) {
	ring := testRing(f, testKey(f, "one secret"))
	i, err := ring.Initiate(nil)
	require.NoError(f, err)
	r, err := ring.Respond(nil, i.KeyID(), i.Message())
	require.NoError(f, err)
	message2, _, err := r.Finish([]byte("payload"))
	require.NoError(f, err)
	f.Add(message2)
	f.Add([]byte{})
	f.Add(make([]byte, message2Overhead))
	f.Fuzz(func(t *testing.T, message2 []byte) {
		fresh, err := ring.Initiate(nil) // the seed answers another one
		require.NoError(t, err)
		payload, s, err := fresh.Finish(message2)
		require.ErrorIs(t, err, ErrMismatch)
		require.Nil(t, payload)
		require.Nil(t, s)
	})
}
