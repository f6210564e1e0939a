package oldsession_test

import (
	"context"
	"encoding/binary"
	"net"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/test/oldsession"
)

// firstHello returns a HELLO of a new session that offers caps, with more of its fields behind those before 0x0B.
func firstHello(caps frame.Caps, more ...byte) []byte {
	limits := &frame.Limits{MaxMessage: 1 << 20, MaxInFlight: 8, MessageWindow: 1 << 16, MaxStreams: 8, StreamWindow: 1 << 16}
	b := frame.AppendHello(nil, &frame.Hello{Kind: frame.KindHello, Version: 1, Role: frame.RoleSession, Caps: caps, Limits: limits})
	return append(b, more...)
}

// Capabilities and optional fields of later versions mean nothing to an old side, in either role; what is critical is refused.
func TestAnOldSidePassesOverWhatItNeedNotKnow(t *testing.T) {
	field := func(id byte, v ...byte) []byte { return append([]byte{id, 0, byte(len(v))}, v...) }
	for name, test := range map[string]struct {
		hello []byte
		code  codes.Code
	}{
		"as today":                  {firstHello(15), codes.OK},
		"every capability":          {firstHello(^frame.Caps(0)), codes.OK},
		"an optional field":         {firstHello(15, field(0x0B, 1, 2, 3)...), codes.OK},
		"a critical field":          {firstHello(15, field(0x14, 1)...), codes.Unsupported},
		"a field twice":             {firstHello(15, field(0x06, 1)...), codes.Protocol},
		"a field that does not fit": {firstHello(15, field(0x0A, 'x')...), codes.Protocol},
		"a later version":           {withVersion(2, firstHello(15)), codes.OK},
		"no version":                {withVersion(0, firstHello(15)), codes.Version},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sessions := make(chan *oldsession.Session, 1)
				a := oldsession.NewAcceptor(oldsession.Config{}, func(s *oldsession.Session) { sessions <- s })
				here, there := faultnet.Pipe(delayed)
				served := make(chan error, 1)
				go func() { served <- a.Serve(there, "x") }()
				require.NoError(t, frame.WriteHello(here, test.hello))
				body, err := frame.ReadHello(here)
				require.NoError(t, err)
				ack, _, err := frame.ConsumeHello(body)
				require.NoError(t, err)
				if test.code != codes.OK {
					require.Equal(t, test.code, ack.Failure.Code)
					require.Error(t, <-served)
					return
				}
				require.Equal(t, frame.KindAck, ack.Kind)
				require.Equal(t, uint8(1), ack.Version)
				require.Equal(t, frame.Caps(15), ack.Caps)
				(<-sessions).Close()
				require.NoError(t, <-served)
			})
		})
	}
}

func withVersion(v byte, hello []byte) []byte {
	hello[1] = v
	return hello
}

func TestAnOldSideTakesAnAckOfALaterPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := faultnet.Pipe(delayed)
		go func() {
			body, err := frame.ReadHello(there)
			if err != nil {
				return
			}
			h, _, err := frame.ConsumeHello(body)
			if err != nil || h.Caps != 15 {
				t.Errorf("HELLO %+v: %v", h, err)
			}
			ack := &frame.Hello{Kind: frame.KindAck, Version: 1, Caps: ^frame.Caps(0), Limits: h.Limits, SessionID: [16]byte{1}}
			if err := frame.WriteHello(there, frame.AppendHello(nil, ack)); err != nil {
				t.Error(err)
			}
		}()
		s, err := oldsession.Dial(here, "x", func(context.Context) (net.Conn, error) { return nil, errNoRoute }, oldsession.Config{})
		require.NoError(t, err)
		s.Close()
		s.Wait()
	})
}

// A side that breaks the protocol is found out.
func TestAnOldSideEndsASessionThatBreaksTheProtocol(t *testing.T) {
	header := func(length int, typ frame.Type, flags byte, id uint64) []byte {
		b := []byte{byte(length >> 16), byte(length >> 8), byte(length), byte(typ), flags}
		return binary.BigEndian.AppendUint64(b, id)
	}
	request := append(header(9, frame.TypeRequest, 0, 1), 0, 0, 0, 0, 0, 0, 0, 0, 0)
	for name, test := range map[string]struct {
		bytes []byte
		code  uint32
	}{
		"an unknown frame":          {header(0, 0x23, 0, 1), oldsession.CodeUnsupported},
		"an unknown flag":           {header(0, frame.TypePing, 1, 1), oldsession.CodeUnsupported},
		"an optional frame":         {append(header(1, 0x80, 0xFF, 9), 1), oldsession.CodeOK},
		"a frame that is too long":  {header(66561, 0x80, 0, 1), oldsession.CodeProtocol},
		"an id of the other side":   {header(0, frame.TypeCancel, 0, 2), oldsession.CodeProtocol},
		"an id twice":               {slices.Concat(request, request), oldsession.CodeProtocol},
		"an ACK of nothing":         {header(0, frame.TypeMessageAck, 0, 2), oldsession.CodeProtocol},
		"data before ACCEPT":        {append(header(1, frame.TypeStreamData, 0, 1), 1), oldsession.CodeProtocol},
		"the rest of a refused one": {slices.Concat(request, append(header(1, frame.TypeContinue, 0, 1), 1)), oldsession.CodeOK},
		"compression without zstd":  {append(header(13, frame.TypeRequest, 1, 1), make([]byte, 13)...), oldsession.CodeProtocol},
		"a start that is too short": {append(header(9, frame.TypeRequest, 0, 1), 0, 0, 0, 0, 0, 0, 0, 0, 9), oldsession.CodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sessions := make(chan *oldsession.Session, 1)
				a := oldsession.NewAcceptor(oldsession.Config{}, func(s *oldsession.Session) { sessions <- s })
				here, there := faultnet.Pipe(delayed)
				go func() { _ = a.Serve(there, "x") }()
				require.NoError(t, frame.WriteHello(here, firstHello(frame.CapBatchAck)))
				_, err := frame.ReadHello(here)
				require.NoError(t, err)
				s := <-sessions
				write(t, here, test.bytes)
				if test.code == oldsession.CodeOK {
					synctest.Wait()
					require.NoError(t, s.Err())
					s.Close()
				}
				s.Wait()
				if test.code != oldsession.CodeOK {
					require.Equal(t, test.code, codeOf(s.Err()), "%v", s.Err())
				}
				require.NoError(t, here.Close())
			})
		})
	}
}

func write(t *testing.T, conn net.Conn, b []byte) {
	t.Helper()
	_, err := conn.Write(b)
	require.NoError(t, err)
}
