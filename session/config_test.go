package session

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/frame"
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
		_, err = NewAcceptor(AcceptorConfig{Config: c})
		require.ErrorContains(t, err, field)
	}
	_, err := NewAcceptor(AcceptorConfig{MaxHandshakes: -1})
	require.ErrorContains(t, err, "MaxHandshakes")
	_, err = NewAcceptor(AcceptorConfig{MaxDetached: -1})
	require.ErrorContains(t, err, "MaxDetached")
}

func TestTheZeroConfigIsFinite(t *testing.T) {
	c, err := Config{}.withDefaults()
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
	_, err = Config{RequestTimeout: -1, Heartbeat: -1}.withDefaults()
	require.NoError(t, err)
}
