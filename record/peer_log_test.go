package record_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/record"
)

func TestPeerLogNamesWhatThePeerWritesOverAllItsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := newShelf()
		one := newTwins(t, &record.Options{Store: kept}, nil, faultnet.LinkOptions{})
		first := one.both[1].PeerLog()
		require.NotEqual(t, record.LogID{}, first)
		require.NotEqual(t, first, one.both[0].PeerLog())
		require.NoError(t, one.both[0].Close())
		two := newTwins(t, &record.Options{Store: kept}, nil, faultnet.LinkOptions{})
		require.Equal(t, first, two.both[1].PeerLog())
	})
}
