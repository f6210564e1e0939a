package mdns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

func TestAPeerIsFoundAndForgotten(t *testing.T) {
	inLAN(t, 3, func(t *testing.T, _ *lan, all []*resident) {
		a, b := all[0], all[1]
		began := time.Now()
		info, err := a.FindPeer(t.Context(), b.ID())
		require.NoError(t, err)
		require.Equal(t, peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}, info)
		require.Less(t, time.Since(began), 2*answerDelay)

		require.NoError(t, b.Discovery.Close())
		synctest.Wait()
		_, err = a.FindPeer(t.Context(), b.ID())
		require.ErrorIs(t, err, routing.ErrNotFound)
		require.ErrorContains(t, err, "no answer from the local network")
		b.Discovery = New(&Options{medium: &station{lan: b.station.lan}}) // so that the end of the test can close it
	})
}

// Claim: mdns.Options.NoAnnounce
func TestAHostWithNoAnnounceFindsOthersButIsNotFound(t *testing.T) {
	inLAN(t, 2, func(t *testing.T, l *lan, all []*resident) {
		a, b := all[0], all[1]
		require.NoError(t, a.Discovery.Close())
		a.Discovery = New(&Options{NoAnnounce: true, medium: a.station})
		require.NoError(t, a.Start(a.Host))
		_, err := b.FindPeer(t.Context(), a.ID())
		require.ErrorIs(t, err, routing.ErrNotFound)
		_, err = a.FindPeer(t.Context(), b.ID())
		require.NoError(t, err)
		before := l.sent()
		require.NoError(t, a.Discovery.Close())
		require.Equal(t, before, l.sent(), "no goodbye message either")
		a.Discovery = New(nil) // so that the end of the test can close it
	})
}

// Idle hosts send nothing, and simultaneous queries get one answer.
func TestFewPacketsAreSent(t *testing.T) {
	inLAN(t, 2, func(t *testing.T, l *lan, all []*resident) {
		before := l.sent()
		time.Sleep(24 * time.Hour)
		require.Equal(t, before, l.sent())
		packet, err := question()
		require.NoError(t, err)
		for range 500 {
			l.send(packet, netip.MustParseAddr("192.168.0.77"))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(answerEvery)
		require.LessOrEqual(t, l.sent()-before-500, len(all)*7, "5 s, and one second more")
	})
}

func TestAHostAnnouncesItselfWhenItsAddressesChange(t *testing.T) {
	inLAN(t, 2, func(t *testing.T, l *lan, all []*resident) {
		time.Sleep(time.Minute)
		before := l.sent()
		emitter, err := all[0].EventBus().Emitter(new(event.EvtLocalAddressesUpdated))
		require.NoError(t, err)
		require.NoError(t, emitter.Emit(event.EvtLocalAddressesUpdated{}))
		time.Sleep(time.Minute)
		require.Equal(t, before+2, l.sent())
		require.NoError(t, emitter.Close())
	})
}

// A peer that starts during a lookup is found by its own announcement.
func TestAPeerThatStartsLaterIsFound(t *testing.T) {
	inLAN(t, 2, func(t *testing.T, l *lan, all []*resident) {
		b := all[1]
		l.mu.Lock()
		b.station.down = true // it receives nothing, and so does not answer
		l.mu.Unlock()
		go func() {
			time.Sleep(time.Second)
			b.announce(lifetime)
		}()
		_, err := all[0].FindPeer(t.Context(), b.ID())
		require.NoError(t, err)
	})
}

func TestTheTableIsBounded(t *testing.T) {
	inLAN(t, 1, func(t *testing.T, l *lan, all []*resident) {
		a := all[0]
		want, other := peer.ID("\x00\x04want"), peer.ID("\x00\x04none")
		done := make(chan error)
		go func() {
			_, err := a.FindPeer(t.Context(), want)
			done <- err
		}()
		synctest.Wait()
		l.send(packetOf(t, other, lifetime, "/ip4/192.168.0.9/tcp/1"), netip.MustParseAddr("192.168.0.9"))
		synctest.Wait()
		require.Len(t, a.known.all, 1)
		require.Empty(t, a.known.all[want].sources)
		for i := range 100 {
			from := netip.AddrFrom4([4]byte{192, 168, 1, byte(i)})
			var addrs []string
			for port := range 100 {
				addrs = append(addrs, fmt.Sprintf("/ip4/192.168.1.%d/tcp/%d", i, port+1))
			}
			l.send(packetOf(t, want, lifetime, addrs...), from)
			require.LessOrEqual(t, len(a.known.all[want].sources), maxSources)
		}
		require.NoError(t, <-done)
		time.Sleep(fresh)
		_, err := a.FindPeer(t.Context(), want)
		require.ErrorIs(t, err, routing.ErrNotFound, "claims expire")
		require.Empty(t, a.known.all)
	})
}

func TestTheNumberOfLookupsIsBounded(t *testing.T) {
	inLAN(t, 1, func(t *testing.T, _ *lan, all []*resident) {
		a := all[0]
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, maxWanted)
		for i := range maxWanted {
			go func() {
				_, err := a.FindPeer(ctx, peer.ID(fmt.Sprint("peer ", i)))
				done <- err
			}()
		}
		synctest.Wait()
		_, err := a.FindPeer(ctx, "one more")
		require.ErrorIs(t, err, routing.ErrNotFound)
		require.ErrorContains(t, err, "too many peers")
		cancel()
		for range maxWanted {
			require.Error(t, <-done)
		}
	})
}

func TestIdlePeersMakeRoom(t *testing.T) {
	k := newTable()
	for i := range maxWanted {
		id := peer.ID(fmt.Sprint("peer ", i))
		require.True(t, k.want(id))
		k.learn(claim{id, []ma.Multiaddr{ma.StringCast("/ip4/192.168.0.9/tcp/1")}}, netip.MustParseAddr("192.168.0.9"))
		k.release(id) // the table keeps it for a while
	}
	require.Len(t, k.all, maxWanted)
	require.True(t, k.want("one more"))
	require.Len(t, k.all, 1)
}

// Addresses that a host claims about itself come before those that another host claims about it.
func TestOwnAddressesComeFirst(t *testing.T) {
	k := newTable()
	require.True(t, k.want("peer"))
	k.learn(claim{"peer", []ma.Multiaddr{ma.StringCast("/ip4/1.2.3.4/tcp/1")}}, netip.MustParseAddr("192.168.0.9"))
	k.learn(claim{"peer", []ma.Multiaddr{ma.StringCast("/ip4/192.168.0.2/tcp/1")}}, netip.MustParseAddr("192.168.0.2"))
	addrs, _ := k.addrs("peer")
	require.Equal(t, []ma.Multiaddr{ma.StringCast("/ip4/192.168.0.2/tcp/1"), ma.StringCast("/ip4/1.2.3.4/tcp/1")}, addrs)
	k.learn(claim{"peer", nil}, netip.MustParseAddr("192.168.0.9")) // withdraws its own claim only
	addrs, _ = k.addrs("peer")
	require.Equal(t, []ma.Multiaddr{ma.StringCast("/ip4/192.168.0.2/tcp/1")}, addrs)
}

func TestAFloodIsIgnored(t *testing.T) {
	inLAN(t, 1, func(t *testing.T, l *lan, all []*resident) {
		a := all[0]
		require.True(t, a.known.want("\x00\x04want"))
		for range maxPerTime {
			l.send([]byte{1}, netip.Addr{})
		}
		packet := packetOf(t, "\x00\x04want", lifetime, "/ip4/192.168.0.9/tcp/1")
		l.send(packet, netip.MustParseAddr("192.168.0.9"))
		addrs, _ := a.known.addrs("\x00\x04want")
		require.Empty(t, addrs)
		time.Sleep(time.Second)
		l.send(packet, netip.MustParseAddr("192.168.0.9"))
		addrs, _ = a.known.addrs("\x00\x04want")
		require.NotEmpty(t, addrs)
		a.known.release("\x00\x04want")
	})
}

func TestTheErrorNamesAMissingNetwork(t *testing.T) {
	inLAN(t, 1, func(t *testing.T, _ *lan, all []*resident) {
		none := errors.New("no network")
		all[0].station.err = none
		_, err := all[0].FindPeer(t.Context(), "peer")
		require.ErrorIs(t, err, routing.ErrNotFound)
		require.ErrorContains(t, err, none.Error())
		require.NoError(t, all[0].Discovery.Close())
		_, err = all[0].FindPeer(t.Context(), "peer")
		require.ErrorContains(t, err, "closed")
		all[0].Discovery = New(nil)
	})
}

func TestCloseWithoutStart(t *testing.T) {
	require.NoError(t, New(nil).Close())
}

// node does not ask again for addresses of other networks, of which mDNS knows none.
func TestTheAnswersAreOfTheLocalNetwork(t *testing.T) {
	require.True(t, New(nil).LocalOnly())
}
