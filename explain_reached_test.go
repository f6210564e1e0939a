package peerlane

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/peerlanetest"
)

// For a reachable peer, Explain reports the path and the round trip, and leaves no session open.
//
// Claim: peerlane.Explanation.Path, peerlane.Explanation.RTT, peerlane.Explanation.Took, peerlane.Explanation.What
func TestExplainTellsThePathOfAReachedPeer(t *testing.T) {
	inPlace(t, func(t *testing.T, p *place) {
		a, b := p.two()
		p.serve(b.Host(), nil)
		c := p.client(a.Host(), nil)
		why := explained(t.Context(), c, b.ID())
		require.True(t, why.Reached, "%v", why)
		require.Equal(t, []string{"reached", "", "", ""}, []string{string(why.Reason), why.Do, why.By, why.Text})
		require.Equal(t, []string{"direct, quic-v1, 40 ms", "the peer was reached"}, []string{why.Path, why.What})
		require.Equal(t, 40*time.Millisecond, time.Duration(why.RTT))
		require.Contains(t, why.String(), "\nresult   reached in ")
		require.Contains(t, why.String(), ", round trip 40 ms\npath     direct, quic-v1, 40 ms\n")
		require.NotContains(t, why.String(), "\ndo ")
		require.Equal(t, []string{string(testTag)}, why.Serves)
		require.NoError(t, why.Unwrap())
		require.Empty(t, c.Sessions(), "it is closed again")

		_, err := c.Send(t.Context(), b.ID(), testTag, nil)
		require.NoError(t, err)
		packets, _ := p.net.Sent()
		why = explained(t.Context(), c, b.ID())
		require.True(t, why.Reached)
		require.Equal(t, 40*time.Millisecond, time.Duration(why.Took), "one ping on the session that there is")
		after, _ := p.net.Sent()
		require.Less(t, after-packets, int64(10))
		require.Len(t, c.Sessions(), 1)
	})
	inPlace(t, func(t *testing.T, p *place) {
		r, b := p.reserved(&node.RelayService{}, node.Options{})
		p.serve(b.Host(), nil)
		a := p.at(homeOfAlice, node.Options{})
		a.Remember(peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{via(r)}})
		why := explained(t.Context(), p.client(a.Host(), func(c *ClientConfig) { c.Path = AllowRelay }), b.ID())
		require.True(t, why.Reached, "%v", why)
		require.Contains(t, why.Path, "relayed by "+r.ID().String())
		require.Contains(t, why.String(), "\nrelay    "+r.ID().String()+", connected, passes 128 KiB each way")
	})
}

// A host that serves the tag itself is reached within the process.
func TestExplainReachesTheHostItself(t *testing.T) {
	inPlace(t, func(t *testing.T, p *place) {
		a, _ := p.two()
		p.serve(a.Host(), nil)
		why := explained(t.Context(), p.client(a.Host(), nil), a.ID())
		require.True(t, why.Reached, "%v", why)
		require.Contains(t, why.Path, "loopback")
	})
}

// A peer that has said when to come again is not asked before. Explain repeats the refusal, with the time left.
func TestExplainKeepsToTheTimeOfARefusal(t *testing.T) {
	inPlace(t, func(t *testing.T, p *place) {
		a, b := p.two()
		refuseHellos(b.Host(), frame.Failure{Code: codes.Unavailable, Text: "too many sessions open, no more are taken", RetryAfter: 3 * time.Second})
		c := p.client(a.Host(), nil)
		require.Equal(t, "peer-full", string(explained(t.Context(), c, b.ID()).Reason))
		time.Sleep(time.Second)
		packets, _ := p.net.Sent()
		why := explained(t.Context(), c, b.ID())
		after, _ := p.net.Sent()
		require.Equal(t, packets, after)
		require.Equal(t, "peer-full", string(why.Reason), "%v", why)
		require.Equal(t, 2*time.Second, time.Duration(why.Limit.Retry))
		require.Contains(t, why.String(), ", try again after 2.0 s\n")
		require.ErrorIs(t, why, ErrUnavailable)
	})
}

// An old peer is reached with a call of its own.
func TestExplainReachesAnOldPeer(t *testing.T) {
	inPlace(t, func(t *testing.T, p *place) {
		a, b := p.two()
		b.Host().SetStreamHandler(testTag, func(s network.Stream) { _ = s.Close() })
		why := explained(t.Context(), p.client(a.Host(), nil), b.ID())
		require.True(t, why.Reached, "%v", why)
		require.Zero(t, why.RTT)
		require.Contains(t, why.Path, "direct")

		c := p.client(a.Host(), nil)
		require.NoError(t, UseModernPSKClient(c, []byte("the key of alice"), cheapPSK))
		why = explained(t.Context(), c, b.ID())
		require.Equal(t, "old-peer", string(why.Reason), "%v", why)
	})
}

// When the ctx ends first, Explain reports the facts that it has.
func TestExplainTellsWhatItKnowsWhenTheTimeIsUp(t *testing.T) {
	inPlace(t, func(t *testing.T, p *place) {
		a, b := p.two()
		p.net.VanishBetween(atFirst, atSecond, true)
		c := p.client(a.Host(), nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		why := explained(ctx, c, b.ID())
		require.True(t, why.Partial)
		require.Equal(t, "no-answer", string(why.Reason), "%v", why)
		require.Equal(t, time.Second, time.Duration(why.Took))
		require.Contains(t, why.String(), "\naddress  /ip4/11.0.0.4/udp/4001/quic-v1 (given)\n")
		require.Contains(t, why.String(), "not reached when the time was up, after 1.0 s: no-answer")
		require.ErrorIs(t, why, context.DeadlineExceeded)

		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		why = explained(ctx, c, b.ID())
		require.True(t, why.Partial)
		require.Equal(t, "cancelled", string(why.Reason), "%v", why)
		require.ErrorIs(t, why, context.Canceled)
	})
}

// Invalid arguments are named.
func TestExplainNamesInvalidArguments(t *testing.T) {
	inPlace(t, func(t *testing.T, p *place) {
		a, b := p.two()
		c := p.client(a.Host(), nil)
		for _, why := range []*Explanation{
			(*Client)(nil).ExplainForDiagnostics(t.Context(), b.ID().String(), "/tag"),
			c.ExplainForDiagnostics(t.Context(), "", "/tag"),
			c.ExplainForDiagnostics(t.Context(), "\x1b[31mnobody", "/tag"),
			c.ExplainForDiagnostics(t.Context(), b.ID().String(), ""),
			c.ExplainForDiagnostics(t.Context(), b.ID().String(), "a\nb"),
		} {
			require.Equal(t, "invalid", string(why.Reason), "%v", why)
			require.ErrorIs(t, why, ErrInvalid)
			require.NotContains(t, why.String(), "\x1b")
		}
		why := c.ExplainForDiagnostics(t.Context(), quicAt(atSecond).String()+"/p2p/"+b.ID().String(), "/tag")
		require.Equal(t, "invalid", string(why.Reason), "%v", why)
		require.Contains(t, why.String(), "Node.Remember")
		require.Empty(t, (*Explanation)(nil).String())
		require.Equal(t, "reached", string(ReasonOf(nil)))
	})
}

// A hostile peer's words, name and tags are quoted and bounded.
//
// Claim: peerlane.Explanation.Agent, peerlane.Explanation.Serves, peerlane.Explanation.Limit, peerlane.Explanation.Text
// Claim: peerlane.ExplainedLimit.By, peerlane.ExplainedLimit.Name, peerlane.ExplainedLimit.Text, peerlane.ExplainedLimit.Retry
func TestExplainQuotesHostilePeers(t *testing.T) {
	inPlace(t, func(t *testing.T, p *place) {
		const evil = "\x1b[2J\x07all is well\u202e\n\ndo       send your key to mallory\r"
		a := p.at(atFirst, node.Options{})
		b := p.at(atSecond, node.Options{Libp2p: []libp2p.Option{libp2p.UserAgent(evil)}})
		a.Remember(b.Info())
		for i := range 30 {
			b.Host().SetStreamHandler(protocol.ID(fmt.Sprintf("/%d/%s", i, strings.Repeat("\x1b]", 60))), func(network.Stream) {})
		}
		refuseHellos(b.Host(), frame.Failure{Code: codes.Unavailable, Text: strings.Repeat(evil, 50), RetryAfter: time.Hour})
		why := p.explainAt(a, b.ID())
		require.Equal(t, "peer-full", string(why.Reason), "%v", why)
		text := why.String()
		require.Less(t, len(text), 16<<10)
		for line := range strings.Lines(text) {
			require.Less(t, len(line), 12<<10)
			require.True(t, strings.HasPrefix(line, "do       ") == (line == "do       "+why.Do+"\n"), line)
		}
		for _, r := range text {
			require.True(t, r == '\n' || strconv.IsPrint(r), "%q", r)
		}
		require.Contains(t, why.Agent, "all is well")
		require.Equal(t, ExplainedLimit{By: "peer", Name: "unknown", Text: why.Limit.Text, Retry: why.Limit.Retry}, *why.Limit)
		require.Equal(t, time.Hour, time.Duration(why.Limit.Retry))
		for _, text := range append([]string{why.Limit.Text, why.Text, why.Agent}, why.Serves...) {
			require.LessOrEqual(t, len(text), maxExplained)
		}
		require.LessOrEqual(t, len(why.Serves), maxExplainedTags+1)
	})
}

// The error of a failed connect carries an Explanation, for which nothing is dialed.
//
// Claim: session.Error.Details
func TestErrorsOfConnectsCarryTheirExplanation(t *testing.T) {
	inPlace(t, func(t *testing.T, p *place) {
		a, b := p.two()
		s := p.server(b.Host(), nil)
		require.NoError(t, s.Start("/another/1.0.0", echoHandler))
		c := p.client(a.Host(), nil)
		_, ofSend := c.Send(t.Context(), b.ID(), testTag, nil)
		_, ofConnect := c.Connect(t.Context(), b.ID(), testTag)
		_, ofDial := Dial(t.Context(), a.Host(), b.ID(), testTag)
		for name, err := range map[string]error{"Send": ofSend, "Connect": ofConnect, "Dial": ofDial} {
			why, ok := errors.AsType[*Explanation](err)
			require.True(t, ok, "%s: %v", name, err)
			require.Equal(t, "not-served", string(why.Reason), "%s: %v", name, why)
			require.Equal(t, []string{"/another/1.0.0"}, why.Serves)
			require.Equal(t, why.Reason, ReasonOf(err))
			require.NotContains(t, err.Error(), "/another/1.0.0", "the text is as it was")
			require.NoError(t, why.Unwrap())
			e, ok := errors.AsType[*Error](err)
			require.True(t, ok)
			require.Same(t, why, e.Details)
		}
	})
	inPlace(t, func(t *testing.T, p *place) {
		a, b := p.two()
		p.net.VanishBetween(atFirst, atSecond, true)
		c := p.client(a.Host(), func(c *ClientConfig) { c.ConnectTimeout, c.MaxRetries = 2*time.Second, 0 })
		_, err := c.Send(t.Context(), b.ID(), testTag, nil) // the wait ends before the dial does
		why, ok := errors.AsType[*Explanation](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, "no-answer", string(why.Reason), "%v", why)
		require.Equal(t, 2*time.Second, time.Duration(why.Took))
		require.True(t, why.Partial)
		require.Len(t, why.Addrs, 1)

		_, err = (&Dialer{Host: a.Host(), Tag: testTag, Timeout: time.Second}).Dial(t.Context(), b.ID())
		why, ok = errors.AsType[*Explanation](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, "no-answer", string(why.Reason), "%v", why)
		require.True(t, why.Partial)
	})
}

// The error of a Send whose ctx ends while the client dials, or looks for another connection of its session, carries one as well.
func TestErrorsOfSendsThatAreOutOfTimeCarryTheirExplanation(t *testing.T) {
	for name, want := range map[string]struct {
		kept   bool
		reason string
	}{
		"dialing":                        {false, "no-answer"},
		"a session without a connection": {true, "stale-address"},
	} {
		t.Run(name, func(t *testing.T) {
			inPlace(t, func(t *testing.T, p *place) {
				a, b := p.two()
				p.serve(b.Host(), nil)
				c := p.client(a.Host(), nil)
				if want.kept {
					_, err := c.Send(t.Context(), b.ID(), testTag, nil)
					require.NoError(t, err)
				}
				p.net.VanishBetween(atFirst, atSecond, true)
				if want.kept {
					require.NoError(t, a.Host().Network().ClosePeer(b.ID()))
					time.Sleep(time.Second)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := c.Send(ctx, b.ID(), testTag, nil)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				why, ok := errors.AsType[*Explanation](err)
				require.True(t, ok, "%v", err)
				require.Equal(t, want.reason, string(why.Reason), "%v", why)
				require.Equal(t, time.Second, time.Duration(why.Took))
				require.Len(t, why.Addrs, 1)
			})
		})
	}
}

// A peer with very many addresses has a short explanation.
//
// Claim: peerlane.Explanation.Addrs, peerlane.Explanation.MoreAddrs, peerlane.Explanation.Dials, peerlane.Explanation.Relays
// Claim: peerlane.ExplainedAddr.Addr, peerlane.ExplainedAddr.From, peerlane.ExplainedDial.Addr, peerlane.ExplainedDial.Error
// Claim: peerlane.ExplainedDial.Times, peerlane.ExplainedDial.At, peerlane.ExplainedDial.Took, peerlane.ExplainedRelay.Relay
func TestExplanationsAreShort(t *testing.T) {
	inPlace(t, func(t *testing.T, p *place) {
		a, _ := p.two()
		var addrs []ma.Multiaddr
		for i := range 60 {
			addrs = append(addrs, quicAt(fmt.Sprintf("13.0.0.%d", i+1)))
		}
		for i := range 20 {
			relay := p.at(fmt.Sprintf("14.0.0.%d", i+1), node.Options{})
			addrs = append(addrs, quicAt("15.0.0.1").Encapsulate(ma.StringCast("/p2p/"+relay.ID().String()+"/p2p-circuit")))
		}
		why := p.explainAt(a, stranger(t), addrs...)
		require.False(t, why.Reached)
		require.Len(t, why.Addrs, maxExplainedAddrs)
		require.Equal(t, len(addrs)-maxExplainedAddrs, why.MoreAddrs)
		require.Equal(t, "given", why.Addrs[0].From)
		require.NotEmpty(t, why.Addrs[0].Addr)
		require.LessOrEqual(t, len(why.Dials), maxExplainedDials)
		require.NotEmpty(t, why.Dials)
		for _, d := range why.Dials {
			require.NotEmpty(t, d.Error)
			require.Positive(t, d.Times)
			require.False(t, d.At.IsZero())
			require.Positive(t, d.Took)
		}
		require.NotEmpty(t, why.Dials[0].Addr)
		require.Len(t, why.Relays, maxExplainedRelays)
		require.NotEmpty(t, why.Relays[0].Relay)
		require.Less(t, len(why.String()), 32<<10)
	})
}

// Explain reports the last attempts to punch holes, if the host is of package node.
//
// Claim: peerlane.Explanation.Punches, peerlane.ExplainedPunch.At, peerlane.ExplainedPunch.Took, peerlane.ExplainedPunch.Error
func TestExplainTellsOfHolePunching(t *testing.T) {
	inPlace(t, func(t *testing.T, p *place) {
		r, b := p.reserved(&node.RelayService{}, node.Options{HolePunch: true})
		p.serve(b.Host(), nil)
		a := p.at(homeOfAlice, node.Options{HolePunch: true})
		for range 10 {
			why := p.explainAt(a, b.ID(), via(r))
			require.Equal(t, "on", why.Punching)
			require.NotEmpty(t, why.Punches)
			for _, punch := range why.Punches {
				require.False(t, punch.At.IsZero())
				require.Positive(t, punch.Took)
				require.Contains(t, punch.Error, "no way through")
			}
			time.Sleep(time.Minute)
		}
		require.Len(t, p.explainAt(a, b.ID()).Punches, 4, "the last ones")
	})
	synctest.Test(t, func(t *testing.T) {
		p := &place{t, peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 20 * time.Millisecond})}
		p.net.AddNAT(peerlanetest.EasyNAT, "11.0.0.10", homeOfAlice)
		p.net.AddNAT(peerlanetest.EasyNAT, "11.0.0.20", homeOfBob)
		r, b := p.reserved(&node.RelayService{}, node.Options{HolePunch: true})
		p.serve(b.Host(), nil)
		why := p.explainAt(p.at(homeOfAlice, node.Options{HolePunch: true}), b.ID(), via(r))
		require.True(t, why.Reached, "%v", why)
		require.Contains(t, why.Path, "direct, quic-v1")
		require.Contains(t, why.String(), "\npunch    led to a direct connection, in ")
		require.Empty(t, why.Punches[len(why.Punches)-1].Error)
	})
}

// Any number of goroutines may ask at the same time, while others call and the client is closed.
func TestExplainMayBeCalledAtTheSameTime(t *testing.T) {
	inPlace(t, func(t *testing.T, p *place) {
		a, b := p.two()
		p.serve(b.Host(), nil)
		c := p.client(a.Host(), nil)
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				why := explained(t.Context(), c, b.ID())
				assert.True(t, why.Reached, "%v", why)
				_, err := c.Send(t.Context(), b.ID(), testTag, nil)
				assert.NoError(t, err)
				to := []peer.ID{b.ID(), a.ID(), stranger(t)}[i%3]
				assert.NotEmpty(t, explained(t.Context(), c, to).String())
			})
		}
		all.Wait()
		for range 16 {
			all.Go(func() {
				why := explained(t.Context(), c, b.ID())
				if !why.Reached {
					assert.Equal(t, "client-closed", string(why.Reason), "%v", why)
				}
			})
		}
		require.NoError(t, c.Close())
		all.Wait()
	})
}
