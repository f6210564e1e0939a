package diagnostics

import (
	"context"
	"encoding/json"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/peerlanetest"
)

// What is explained can be marshaled, and is the same when it is read again.
//
// Claim: peerlane.Explanation.Version, peerlane.Explanation.Taken, peerlane.Explanation.Host, peerlane.Explanation.Peer
// Claim: peerlane.Explanation.Tag, peerlane.Explanation.Keys, peerlane.Explanation.Punching
// Claim: peerlane.ExplainedRelay.Connected, peerlane.ExplainedRelay.Used, peerlane.ExplainedRelay.Data, peerlane.ExplainedRelay.Left
// Claim: peerlane.ExplainedRelay.Duration, peerlane.ExplainedDial.Relay
func TestAnExplanationIsJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &peerlanetest.HostsOptions{Relayed: true, RelayLimit: relay.DefaultLimit(), Delay: 10 * time.Millisecond})
		require.NoError(t, p.server.Start("/another/1.0.0", echo))
		why := Explain(t.Context(), p.client, p.Bob.ID().String(), tag)
		require.Equal(t, []any{1, p.Alice.ID().String(), p.Bob.ID().String(), tag}, []any{why.Version, why.Host, why.Peer, why.Tag})
		require.WithinDuration(t, time.Now(), why.Taken, time.Second)
		require.Empty(t, why.Keys)
		require.Equal(t, "unknown", why.Punching, "the host is not of package node")
		require.Len(t, why.Relays, 1)
		r := why.Relays[0]
		require.Equal(t, []any{true, true, int64(128 << 10), 2 * time.Minute}, []any{r.Connected, r.Used, r.Data, time.Duration(r.Duration)})
		require.Positive(t, r.Left)
		require.LessOrEqual(t, r.Left, r.Data)
		require.ErrorIs(t, why, peerlane.ErrNotServed)
		for _, d := range why.Dials {
			require.False(t, d.Relay)
		}

		text, err := json.Marshal(why)
		require.NoError(t, err)
		var again Explanation
		require.NoError(t, json.Unmarshal(text, &again))
		require.Equal(t, why.String(), again.String())
		second, err := json.Marshal(again)
		require.NoError(t, err)
		require.JSONEq(t, string(text), string(second))
		var fields map[string]any
		require.NoError(t, json.Unmarshal(text, &fields))
		require.Equal(t, "not-served", fields["reason"])
		require.IsType(t, 0.0, fields["took_ms"])
		for f := range reflect.TypeFor[Explanation]().Fields() {
			if f.IsExported() {
				require.Regexp(t, `^[a-z_]+(,omit(empty|zero))?$`, f.Tag.Get("json"), f.Name)
			}
		}
	})
}

// Explain accepts nil arguments, and never returns nil.
func TestExplainTakesNil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		require.NoError(t, p.server.Start(tag, echo))
		var none context.Context
		why := Explain(none, p.client, p.Bob.ID().String(), tag)
		require.True(t, why.Reached, "%v", why)
		why = Explain(t.Context(), nil, p.Bob.ID().String(), tag)
		require.Equal(t, "invalid", string(why.Reason))
		require.ErrorIs(t, why, peerlane.ErrInvalid)
		require.Contains(t, why.String(), "client: nil")
		require.NotNil(t, Explain(none, nil, "", ""))
	})
}
