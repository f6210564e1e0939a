package pointsub

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/session"
)

// What is read is written the same; an error is a refusal or an end; and what is held is what has come and a Chunk, whatever is announced.
func FuzzRead(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x05hello"), 10, 100)
	f.Add([]byte("\x00\x00\x00\x00"), 0, 0)
	f.Add([]byte("\xff\xff\xff\xffhello"), 1<<30, 1<<20)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), 1<<30, 1)
	f.Fuzz(func(t *testing.T, wire []byte, limit, room int) {
		limit = max(0, limit)
		r := iotest.HalfReader(bytes.NewReader(wire))
		n, err := ReadSize(r, limit)
		held := 0
		var body []byte
		if err == nil {
			require.LessOrEqual(t, n, limit)
			body, err = ReadBody(r, n, func(more int) bool { held += more; return held <= room })
		}
		require.LessOrEqual(t, held, len(wire)+2*Chunk)
		if err != nil {
			_, refused := errors.AsType[*session.Error](err)
			require.True(t, refused || err == io.ErrUnexpectedEOF, "%v", err)
			require.Nil(t, body)
			return
		}
		var again bytes.Buffer
		require.NoError(t, Write(&again, body, Deadline{Set: none}))
		require.Equal(t, wire[:again.Len()], again.Bytes())
		require.Equal(t, Header+int(binary.BigEndian.Uint32(wire)), again.Len())
	})
}
