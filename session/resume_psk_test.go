package session

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/psk"
)

// sealedRoad is a road whose carriers are sealed under key 0; taps has what passed through each link, from the dialing end.
func sealedRoad(t *testing.T, accept *psk.Keyring) (r *road, dial *psk.Keyring, taps *[]*capture) {
	t.Helper()
	r = &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}}
	taps = new([]*capture)
	r.wrap = func(_ int, here, there net.Conn) (net.Conn, net.Conn) {
		c := new(capture)
		*taps = append(*taps, c)
		return c.tap(here), there
	}
	r.mux.SetCall(echo)
	dial = keyring(t, 0)
	r.dial(Config{Keys: dial}, AcceptorConfig{Config: Config{Keys: accept}})
	return r, dial, taps
}

// firstHello returns the body of the hello that c has seen written.
func firstHello(t *testing.T, c *capture) []byte {
	t.Helper()
	said, _ := c.seen()
	return said[2 : 2+binary.BigEndian.Uint16(said)]
}

// Row: S2. Every carrier has a handshake and keys of its own, and nothing of a session is seen on any.
func TestEachCarrierOfASealedSessionHasItsOwnHandshake(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r, _, taps := sealedRoad(t, keyring(t, 0))
		secret := []byte("a word that nobody is to see")
		for range 3 {
			answer, err := r.dialer.Call(t.Context(), "", secret)
			require.NoError(t, err)
			require.Equal(t, secret, answer)
			r.lose()
			r.block(false)
			require.NoError(t, r.dialer.Reconnect(t.Context()))
		}
		_, err := r.dialer.Call(t.Context(), "", secret)
		require.NoError(t, err)
		require.NoError(t, r.dialer.Reconnect(t.Context()))
		_, err = r.dialer.Call(t.Context(), "", secret)
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, StateMigrated, r.dialer.State())

		require.Len(t, *taps, 5)
		proofs := map[string]bool{}
		for i, c := range *taps {
			h, _, err := frame.ConsumeHello(firstHello(t, c))
			require.NoError(t, err)
			require.Equal(t, i > 0, h.Role == frame.RoleResume)
			require.Len(t, h.Noise, 56)
			proofs[string(h.Noise)] = true
			out, in := c.seen()
			require.False(t, bytes.Contains(append(out, in...), secret[:12]), "carrier %d", i)
		}
		require.Len(t, proofs, 5)
	})
}

// Row: S2. Row: S3. Who has the session id but not the key, or has recorded a hello, neither resumes nor disturbs.
// Claim: session.ErrPSKMismatch, session.ErrPSKRequired
func TestASealedSessionIsResumedOnlyWithTheKey(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r, _, taps := sealedRoad(t, keyring(t, 0))
		r.lose()
		r.block(false)
		require.NoError(t, r.dialer.Reconnect(t.Context()))
		recorded := firstHello(t, (*taps)[1])
		synctest.Wait()
		before := r.accepted.Snapshot()

		resume := &frame.Hello{Role: frame.RoleResume, SessionID: r.dialer.ID(), Resume: &frame.Resume{Attempt: 1 << 30}}
		h, err := helloTo(t, r.acceptor, append([]byte{1, 1}, frame.AppendHello(nil, resume)[2:]...))
		require.ErrorIs(t, err, ErrPSKRequired)
		require.Equal(t, codes.PSKRequired, h.Failure.Code)

		h, err = helloTo(t, r.acceptor, recorded)
		require.ErrorIs(t, err, ErrPSKReplayed)
		require.Equal(t, codes.PSKReplayed, h.Failure.Code)

		for changed := range recorded {
			if changed == 1 {
				continue // the version, which is refused before
			}
			b := bytes.Clone(recorded)
			b[changed] ^= 1
			_, err = helloTo(t, r.acceptor, b)
			require.Error(t, err, "byte %d", changed)
		}

		here, there := faultnet.Pipe(faultnet.LinkOptions{})
		go func() { _ = r.acceptor.Serve(there, "alice") }()
		other := Config{Local: "alice", Keys: keyring(t, 1), HandshakeTimeout: time.Second, CloseTimeout: time.Second}
		_, err = greet(t.Context(), here, "bob", resume, &other)
		require.ErrorIs(t, err, ErrPSKMismatch)

		require.Equal(t, before, r.accepted.Snapshot(), "the session has noticed nothing")
		_, err = r.dialer.Call(t.Context(), "", []byte("x"))
		require.NoError(t, err)
		require.NoError(t, r.dialer.Reconnect(t.Context()), "the attempts count on where they were")
	})
}

// Row: S2. A key that was rotated, and the old one retired, while the session was away: a clear end, on both sides.
func TestASessionWhoseKeyWasRetiredEndsWithAClearError(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		accept := keyring(t, 0)
		r, _, _ := sealedRoad(t, accept)
		r.lose()
		require.NoError(t, accept.Rotate(testKeys()[1]))
		accept.Retire()
		began := time.Now()
		r.block(false)
		e := wantLost(t, r.dialer)
		require.ErrorIs(t, e, ErrPSKMismatch)
		require.Equal(t, codes.PSKMismatch, e.Code)
		require.Contains(t, e.Error(), "psk mismatch")
		require.Less(t, time.Since(began), time.Second, "the refusal is final")
		require.ErrorIs(t, r.dialer.AwaitCarrier(t.Context()), ErrPSKMismatch)
		wantLost(t, r.accepted)
		r.serving.Wait()
		r.wantNothingLeft()
	})
}

// A key that is rotated on both sides in turn does not cost the session.
func TestASessionOutlivesTheRotationOfItsKey(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		accept := keyring(t, 0)
		r, dial, _ := sealedRoad(t, accept)
		again := func() {
			r.lose()
			r.block(false)
			require.NoError(t, r.dialer.Reconnect(t.Context()))
			_, err := r.dialer.Call(t.Context(), "", []byte("x"))
			require.NoError(t, err)
			synctest.Wait() // the answer may have come before the accepting side has noted what it came over
		}
		require.NoError(t, accept.Rotate(testKeys()[1]))
		again()
		require.NoError(t, dial.Rotate(testKeys()[1]))
		again()
		accept.Retire()
		dial.Retire()
		again()
		require.EqualValues(t, 3, r.accepted.Snapshot().Resumes)
	})
}
