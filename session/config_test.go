package session

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/frame"
)

// Row: D17
func TestAConfigOutOfRangeNamesTheField(t *testing.T) {
	for field, c := range map[string]Config{
		"HandshakeTimeout": {HandshakeTimeout: -1},
		"WriteTimeout":     {WriteTimeout: -1},
		"ReadTimeout":      {ReadTimeout: -1},
		"CloseTimeout":     {CloseTimeout: -1},
		"HeartbeatTimeout": {Heartbeat: 2 * time.Second, HeartbeatTimeout: time.Second},
		"MaxMessage":       {MaxMessage: frame.MaxTotal + 1},
		"MaxInFlight":      {MaxInFlight: -1},
		"MessageWindow":    {MessageWindow: -1},
		"MaxStreams":       {MaxStreams: 1<<20 + 1},
		"StreamWindow":     {StreamWindow: -1},
		"MaxRequests":      {MaxRequests: -1},
		"Agent":            {Agent: strings.Repeat("x", 256)},
	} {
		_, err := c.withDefaults()
		require.ErrorContains(t, err, field)
		_, err = NewAcceptor(&AcceptorConfig{Config: c})
		require.ErrorContains(t, err, field)
	}
	_, err := NewAcceptor(&AcceptorConfig{MaxHandshakes: -1})
	require.ErrorContains(t, err, "MaxHandshakes")
	_, err = NewAcceptor(&AcceptorConfig{MaxDetached: -1})
	require.ErrorContains(t, err, "MaxDetached")
}

func TestTheZeroConfigIsFinite(t *testing.T) {
	c, err := (*Config)(nil).withDefaults()
	require.NoError(t, err)
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		switch f := v.Type().Field(i); f.Type.Kind() {
		case reflect.Int, reflect.Int64:
			require.Positive(t, v.Field(i).Int(), f.Name)
		}
	}
	require.NotNil(t, c.Mux)
	require.NotNil(t, c.Quota)
	require.NotNil(t, c.Logger)
	_, err = (&Config{RequestTimeout: -1, Heartbeat: -1}).withDefaults()
	require.NoError(t, err)
}

// The defaults and the upper limits are those that the doc comments state.
func TestTheDefaultsOfAConfigAreThoseThatItStates(t *testing.T) {
	c, err := (*Config)(nil).withDefaults()
	require.NoError(t, err)
	c.Mux, c.Quota, c.Logger, c.pacer = nil, nil, nil, nil
	require.Equal(t, Config{
		HandshakeTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, ReadTimeout: 30 * time.Second, RequestTimeout: 30 * time.Second,
		ResumeWindow: time.Minute, Heartbeat: 5 * time.Second, HeartbeatTimeout: 10 * time.Second, CloseTimeout: 5 * time.Second,
		MaxMessage: 32 << 20, MaxInFlight: 4096, MessageWindow: 1 << 20, MaxStreams: 128, StreamWindow: 512 << 10, ReplayWindow: 1 << 20,
		MaxRequests: math.MaxInt,
	}, c)
	a, err := NewAcceptor(nil)
	require.NoError(t, err)
	require.Equal(t, 16, a.perPeer)
	require.Equal(t, 256, a.detached)
	for field, most := range map[string]int{
		"MaxMessage": 1 << 30, "MessageWindow": 1 << 30, "StreamWindow": 1 << 30, "MaxInFlight": 1 << 20, "MaxStreams": 1 << 20,
		"ReplayWindow": 64 << 20,
	} {
		for _, n := range []int{most, most + 1} {
			var c Config
			reflect.ValueOf(&c).Elem().FieldByName(field).SetInt(int64(n))
			_, err := c.withDefaults()
			require.Equal(t, n == most, err == nil, "%s %d: %v", field, n, err)
		}
	}
	for field, most := range map[string]int{"Local": math.MaxUint16, "Tag": math.MaxUint16, "Agent": 255} {
		for _, n := range []int{most, most + 1} {
			var c Config
			reflect.ValueOf(&c).Elem().FieldByName(field).SetString(strings.Repeat("x", n))
			_, err := c.withDefaults()
			require.Equal(t, n == most, err == nil, "%s of %d bytes: %v", field, n, err)
		}
	}
}

// A side takes no message for which its quota can have no room: the peer learns that from the hello, and its call fails at once, without a
// hint to try again.
func TestNoMessageIsLargerThanTheQuota(t *testing.T) {
	for limit, most := range map[int64]int{1 << 20: 7 << 17, 15: 15, 1 << 30: 32 << 20, 0: 32 << 20} {
		inBubble(t, func(t *testing.T) {
			p := newPair(t, Config{DisableCompression: true}, AcceptorConfig{Config: Config{Quota: &Quota{MaxBytes: limit}}})
			p.mux.SetCall(func(m *Message) ([]byte, error) { return nil, nil })
			require.EqualValues(t, most, p.dialer.limits.MaxMessage)
			_, err := p.dialer.Call(t.Context(), "", make([]byte, most+1))
			require.ErrorIs(t, err, ErrTooLarge)
			require.Zero(t, asError(t, err, NotSent).RetryAfter)
			_, err = p.dialer.Call(t.Context(), "", make([]byte, most))
			require.NoError(t, err)
		})
	}
}
