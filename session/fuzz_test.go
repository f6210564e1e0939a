package session

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/frame"
)

// What FuzzSession does with its bytes.
const (
	fuzzHello   = iota // they are all that a peer ever says
	fuzzFrames         // they follow a valid hello
	fuzzScript         // they are a script of well-formed headers: type, flags, id, length, payload
	fuzzClients        // the same, to the side that dialed
	fuzzModes

	fuzzCredit = 0x80 // with any of them: the session has a credit (spec 5.12)
)

// FuzzSession: whatever a peer says, a session does not panic, does not hang, and holds nothing once it has ended.
func FuzzSession(f *testing.F) {
	hello := frame.AppendHello(nil, &frame.Hello{Kind: frame.KindHello, Version: 1, Role: frame.RoleSession, Limits: &generous})
	f.Add(append([]byte{fuzzHello, 0, byte(len(hello))}, hello...))
	req := start(frame.TypeRequest, 0, frame.Start{Total: 3, Link: "echo"}, []byte("abc"))
	f.Add(append(frame.AppendHeader([]byte{fuzzFrames}, frame.Header{Length: len(req), Type: frame.TypeRequest, ID: 1}), req...))
	script := func(mode byte, frames ...[]byte) []byte {
		b := []byte{mode}
		for _, fr := range frames {
			b = append(b, fr...)
		}
		return b
	}
	step := func(typ frame.Type, flags, id byte, payload []byte) []byte {
		return append([]byte{byte(typ), flags, id, byte(len(payload))}, payload...)
	}
	for _, mode := range []byte{fuzzScript, fuzzClients} {
		id := 1 + mode - fuzzScript
		f.Add(script(mode, step(frame.TypeRequest, 0, id, req), step(frame.TypeCancel, 0, id, nil)))
		f.Add(script(mode, step(frame.TypeRequest, 0, id, req[:12]), step(frame.TypeContinue, 0, id, []byte("b")), step(frame.TypeContinue, 0, id, []byte("c"))))
		f.Add(script(mode, step(frame.TypeMessage, 0, id, head(2)), step(frame.TypeContinue, 0, id, []byte("xy"))))
		f.Add(script(mode, step(frame.TypeStreamOpen, 0, id, []byte("echo")), step(frame.TypeStreamData, 1, id, []byte("data"))))
		f.Add(script(mode, step(frame.TypeStreamOpen, 0, id, []byte("echo")), step(frame.TypeStreamReset, 0, id, make([]byte, 8))))
		f.Add(script(mode, step(frame.TypeStreamStop, 0, 3-id, make([]byte, 8)), step(frame.TypeGoAway, 0, 9, make([]byte, 8))))
	}
	f.Add(script(fuzzClients, step(frame.TypeResponse, 0, 1, []byte{0, 0, 0, 1, 'x'}), step(frame.TypeStreamAccept, 0, 5, nil),
		step(frame.TypeMessageAck, 0, 3, nil), step(frame.TypeStreamCredit, 0, 5, []byte{0, 0, 0, 9})))
	for _, mode := range []byte{fuzzScript, fuzzClients} {
		id := 1 + mode - fuzzScript
		more := frame.AppendCredit(nil, 100)
		f.Add(script(mode|fuzzCredit, step(frame.TypeStreamOpen, 0, id, []byte("echo")), step(frame.TypeSessionCredit, 0, 0, more),
			step(frame.TypeStreamData, 0, id, []byte("data")), step(frame.TypeSessionAsk, 0, 0, nil), step(frame.TypeSessionReturn, 0, 0, more),
			step(frame.TypeStreamReset, 0, id, make([]byte, 8)), step(frame.TypeStreamData, 0, id, []byte("late"))))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 || len(data) > 1<<16 {
			return
		}
		mode, caps := data[0]%fuzzCredit%fuzzModes, frame.CapZstd
		if data[0] >= fuzzCredit {
			caps |= frame.CapCredit
		}
		inBubble(t, func(t *testing.T) { fuzzOne(t, mode, caps, data[1:]) })
	})
}

func fuzzOne(t *testing.T, mode byte, caps frame.Caps, data []byte) {
	mux := NewMux()
	mux.SetCall(echo)
	mux.SetDefaultLink(func(m *Message) {
		if m.WantsReply() {
			_ = m.Reply(m.Value)
		}
	})
	mux.SetStream("echo", func(st *Stream) { _, _ = io.Copy(st, st) })
	cfg := Config{Mux: mux, MaxMessage: 1 << 20, MaxStreams: 4, MaxInFlight: 4, MessageWindow: 1000, StreamWindow: 1000}
	if mode == fuzzHello {
		a, err := NewAcceptor(&AcceptorConfig{Config: cfg})
		require.NoError(t, err)
		here, there := net.Pipe()
		done := make(chan struct{})
		go func() {
			_ = a.Serve(there, "x")
			close(done)
		}()
		go func() { _, _ = io.Copy(io.Discard, here) }()
		_, _ = here.Write(data)
		_ = here.Close()
		<-done
		synctest.Wait()
		require.Empty(t, a.Sessions())
		require.Zero(t, a.cfg.Quota.Snapshot().Sessions)
		return
	}
	var w *wire
	if mode == fuzzClients {
		w = dialed(t, cfg, caps, generous)
	} else {
		w = accepted(t, AcceptorConfig{Config: cfg}, caps, generous)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { _, _ = w.s.Call(ctx, "x", make([]byte, 100)) }()
	synctest.Wait()
	_ = w.s.Send(ctx, "x", make([]byte, 100))
	synctest.Wait()
	go func() {
		if st, err := w.s.OpenStream(ctx, "x", nil); err == nil {
			_, _ = st.Write(make([]byte, 5000))
			_ = st.Close()
		}
	}()
	synctest.Wait()
	if mode == fuzzFrames {
		_, _ = w.conn.Write(data)
	} else {
		runScript(w, data)
	}
	time.Sleep(time.Second)
	if w.s.Err() == nil && len(data)%2 == 0 {
		_ = w.s.Shutdown(within(t, time.Second))
	}
	_ = w.conn.Close()
	<-w.s.Done()
	<-w.gone
	synctest.Wait()
	wantZero(t, w.s)
}

// runScript sends frames until data is used up or the session has ended.
func runScript(w *wire, data []byte) {
	for len(data) >= 4 && w.s.Err() == nil {
		h := frame.Header{Type: frame.Type(data[0]), Flags: frame.Flags(data[1]), ID: uint64(data[2]), Length: int(data[3])}
		data = data[4:]
		h.Length = min(h.Length, len(data))
		payload := append([]byte(nil), data[:h.Length]...)
		if h.Type <= frame.TypeMessage && len(payload) >= 4 { // small totals, or nothing is ever whole
			binary.BigEndian.PutUint16(payload, 0)
		}
		data = data[h.Length:]
		_, _ = w.conn.Write(append(frame.AppendHeader(nil, h), payload...))
	}
}
