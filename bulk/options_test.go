package bulk

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

func TestOptionsNameTheFieldThatIsWrong(t *testing.T) {
	for _, test := range []struct {
		o    Options
		says string
	}{
		{Options{Mode: 2}, "invalid value: Mode is 2, want Shared or Dedicated"},
		{Options{Strands: -1}, "invalid value: Strands is -1, want 1 to 16"},
		{Options{Mode: Dedicated, Strands: 17}, "invalid value: Strands is 17, want 1 to 16"},
		{Options{Strands: 2}, "invalid value: Strands is 2: a shared lane has one"},
		{Options{Rate: -1}, "invalid value: Rate is -1, want 0 or more"},
		{Options{HandshakeTimeout: -1}, "invalid value: HandshakeTimeout is -1ns, want more than 0"},
	} {
		l, err := Open(context.Background(), nil, "lane", &test.o) // before it looks at the session
		require.Nil(t, l)
		require.ErrorIs(t, err, errInvalid)
		require.EqualError(t, err, test.says)
	}
	for _, o := range []*Options{nil, {}, {Mode: Dedicated}, {Mode: Dedicated, Strands: 16}, {Strands: 1, Rate: 1}, {HandshakeTimeout: 1}} {
		set := o.withDefaults()
		require.NoError(t, set.validate())
	}
	require.Equal(t, Options{Strands: 1, HandshakeTimeout: 5 * time.Second}, (*Options)(nil).withDefaults())
	require.Equal(t, "shared dedicated", Shared.String()+" "+Dedicated.String())
}

// Strands, HandshakeTimeout, AllowLimited and Registry are proved elsewhere: TestLanesCarryTheSameBytes, TestOpenTakesNoAnswerThatIsNone,
// TestALaneOnALimitedConnectionWaits and below, TestRegistryListsWhatIsOpen.

// It takes both sides to compress.
// Claim: bulk.Snapshot.Compressed, bulk.Options.Compress
func TestCompressIsAgreedOn(t *testing.T) {
	for _, test := range []struct{ here, there, none, want bool }{
		{true, true, false, true}, {true, false, false, false}, {false, true, false, false}, {false, false, false, false},
		{true, false, true, true}, {false, false, true, false},
	} {
		for _, strands := range []int{1, 2} {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
				accept := func(AcceptInfo) (*Options, error) {
					if test.none {
						return nil, nil
					}
					return &Options{Compress: test.there}, nil
				}
				Handle(p.ToBob, "lane", accept, func(l *Lane) { _, _ = io.Copy(l, l) })
				l, err := Open(t.Context(), p.Alice, "lane", &Options{Mode: Dedicated, Strands: strands, Compress: test.here})
				require.NoError(t, err)
				go func() {
					_, _ = l.Write(make([]byte, 1<<20))
					_ = l.CloseWrite()
				}()
				b, err := io.ReadAll(l)
				require.NoError(t, err)
				require.Len(t, b, 1<<20)
				v := l.Snapshot()
				require.Equal(t, test.want, v.Compressed, "%+v", test)
				switch {
				case test.want:
					require.Less(t, v.Wire, v.Raw/100)
				case strands > 1:
					require.Equal(t, v.Raw+4*blockHead, v.Wire)
				default:
					require.Zero(t, v.Wire, "it is plain")
				}
				require.NoError(t, l.Close())
			})
		}
	}
}

// AllowLimited lets a lane use a limited connection at once. A dedicated one would end with the connection, and is shared instead.
// Claim: bulk.Options.AllowLimited
func TestAllowLimitedUsesALimitedConnection(t *testing.T) {
	for _, mode := range []Mode{Shared, Dedicated} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
			p.limited.Store(true)
			require.NoError(t, p.Alice.Reconnect(t.Context()))
			here, there := p.lanes(t, &Options{Mode: mode, AllowLimited: true})
			require.Equal(t, Shared, here.Snapshot().Mode)
			require.Equal(t, mode == Dedicated, here.Snapshot().FellBack != nil)
			began := time.Now()
			_, err := here.Write(make([]byte, 1000))
			require.NoError(t, err)
			_, err = io.ReadFull(there, make([]byte, 1000))
			require.NoError(t, err)
			require.Less(t, time.Since(began), time.Second)
		})
	}
}
