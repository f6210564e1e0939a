package transfer

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/invalid"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

func TestWrongOptionsAreNamed(t *testing.T) {
	for name, o := range map[string]ReceiveOptions{
		"Options.Lanes is 17":                              {Options: Options{Lanes: wire.MaxLanes + 1}},
		"Options.Lanes is -1":                              {Options: Options{Lanes: -1}},
		"Options.Rate is -5":                               {Options: Options{Rate: -5}},
		"Options.StallAfter is -1s":                        {Options: Options{StallAfter: -time.Second}},
		"ReceiveOptions.Verify is 3: there is no such way": {Verify: VerifyNothing + 1},
	} {
		err := o.withDefaults().validate()
		require.ErrorContains(t, err, name)
		require.ErrorIs(t, err, invalid.Err)
		require.Equal(t, CodeInvalid, CodeOf(err))
	}
	for _, o := range []ReceiveOptions{
		{}, {Options: Options{Lanes: wire.MaxLanes, Rate: 1, StallAfter: 1, ResumeWindow: -1}}, {Verify: VerifyNothing, Sync: SyncEach, Checksum: true},
	} {
		require.NoError(t, o.withDefaults().validate())
	}
}

func TestDefaultsReplaceZerosAlone(t *testing.T) {
	o := ReceiveOptions{Options: Options{Lanes: 2, ResumeWindow: -1, StallAfter: time.Hour}, Rules: &Rules{Entries: 3}}.withDefaults()
	require.Equal(t, 2, o.Lanes)
	require.Equal(t, time.Duration(-1), o.ResumeWindow)
	require.Equal(t, time.Hour, o.StallAfter)
	require.Equal(t, &Rules{Entries: 3}, o.Rules)
	require.NotNil(t, o.OnEvent)
	o.tell(Event{}) // does nothing
	require.Equal(t, LocalRules(), *ReceiveOptions{}.withDefaults().Rules)
}

func TestAServiceNamesItsWrongOptions(t *testing.T) {
	for name, cfg := range map[string]*ServiceConfig{
		"Lanes":   {Options: Options{Lanes: 99}},
		"Rate":    {Options: Options{Rate: -1}},
		"Pending": {Pending: -1},
	} {
		v, err := NewService(cfg)
		require.Nil(t, v)
		require.ErrorContains(t, err, name)
		require.Equal(t, CodeInvalid, CodeOf(err))
	}
	v, err := NewService(&ServiceConfig{})
	require.NoError(t, err)
	require.Equal(t, 4, v.cfg.Pending)
	require.Equal(t, 4, v.cfg.Lanes)
	require.NoError(t, v.Close())
	require.NoError(t, v.Close(), "again")
}

func TestTheArgumentsOfAFetchAreChecked(t *testing.T) {
	var dial Dialer = func(context.Context) (*session.Session, error) { return nil, nil }
	long := make([]byte, wire.MaxToken+1)
	for name, err := range map[string]error{
		"there is no source":                 validateSources(nil, Ref{}, nil),
		"source 1 is nil":                    validateSources([]Dialer{dial, nil}, Ref{}, nil),
		"Ref.Token has 65 bytes":             validateSources([]Dialer{dial}, Ref{Token: long}, nil),
		"Tokens has 2 for 1 sources":         validateSources([]Dialer{dial}, Ref{}, [][]byte{nil, nil}),
		"Tokens[1] has 65 bytes, at most 64": validateSources([]Dialer{dial, dial}, Ref{}, [][]byte{nil, long}),
	} {
		require.ErrorContains(t, err, name)
		require.Equal(t, CodeInvalid, CodeOf(err), name)
	}
	require.NoError(t, validateSources([]Dialer{dial}, Ref{Token: long[1:]}, nil))
	require.NoError(t, validateSources([]Dialer{dial}, Ref{Token: long}, [][]byte{long[1:]}), "the token of the Ref is not used")
}

func TestTheRateIsSlicedSoThatSomethingMoves(t *testing.T) {
	require.Equal(t, 64<<10, slice(0))
	require.Equal(t, 64<<10, slice(1<<30))
	require.Equal(t, 25<<10, slice(100<<10))
	require.Equal(t, 1<<10, slice(1))
	require.Nil(t, newLimiter(0))
	require.NoError(t, pace(t.Context(), nil, 1<<30))
	require.Equal(t, 256<<10, newLimiter(1).Burst(), "a piece passes at once")
	require.Equal(t, 5<<20, newLimiter(1000<<20).Burst())
}
