package ticket

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// anyAddr draws an address of any reach, transport and network.
func anyAddr(t *rapid.T) ma.Multiaddr {
	site := rapid.SampledFrom([]string{
		"/ip4/8.8.%d.8", "/ip4/10.0.%d.1", "/ip4/192.168.%d.1", "/ip4/127.0.%d.1", "/ip6/2606:4700::%d", "/ip6/fe80::%d", "/ip6/fd00::%d", "/dns4/a%d.example.com",
	}).Draw(t, "site")
	transport := rapid.SampledFrom([]string{
		"/tcp/4001", "/udp/4001/quic-v1", "/udp/4001/quic-v1/webtransport", "/udp/4001/webrtc-direct", "/tcp/443/tls/ws",
	}).Draw(t, "transport")
	text := fmt.Sprintf(site, rapid.IntRange(0, 12).Draw(t, "n")) + transport
	if rapid.IntRange(0, 4).Draw(t, "relayed") == 0 {
		text += "/p2p/" + bob + "/p2p-circuit"
	}
	a, err := ma.NewMultiaddr(text)
	require.NoError(t, err, text)
	return a
}

// Whatever a host's addresses are, those that are chosen are some of them, each once, few, and one of each reach that there is.
func TestAChoiceIsSomeOfTheAddresses(t *testing.T) {
	sender := id(t, alice)
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Custom(anyAddr), 0, 40).Draw(t, "addresses")
		chosen := Choose(all)
		require.LessOrEqual(t, len(chosen), maxAddrs)
		require.Equal(t, len(all) == 0, len(chosen) == 0)
		texts := make(map[string]bool)
		for _, a := range all {
			texts[a.String()] = true
		}
		seen := make(map[string]bool)
		var reaches [reaches]bool
		last := reach(0)
		for _, a := range chosen {
			require.True(t, texts[a.String()], "%v", a)
			require.False(t, seen[a.String()], "%v twice", a)
			seen[a.String()] = true
			require.GreaterOrEqual(t, reachOf(a), last, "the widest reach is first")
			last = reachOf(a)
			reaches[last] = true
		}
		useful := false
		for _, a := range all {
			c, ok := newCandidate(a)
			useful = useful || ok && !c.browser && c.reach != here
		}
		for _, a := range all {
			if c, _ := newCandidate(a); useful && !c.browser && c.reach != here {
				require.True(t, reaches[c.reach], "of the reach of %v there is none in %v", a, chosen)
			}
		}
		text, err := Ticket{Sources: []peer.AddrInfo{{ID: sender, Addrs: chosen}}}.Encode()
		require.NoError(t, err)
		require.Less(t, len(text), 700)
	})
}

// A ticket survives what programs and people do to a text that they pass on.
func TestATicketIsFoundInWhatIsAroundIt(t *testing.T) {
	want := sample(t)
	whole := encoded(t, want)
	rapid.Check(t, func(t *rapid.T) {
		text := whole
		if rapid.Bool().Draw(t, "upper case") {
			text = strings.ToUpper(text)
		}
		for range rapid.IntRange(0, 5).Draw(t, "breaks") {
			runes := []rune(text)
			at := rapid.IntRange(0, len(runes)).Draw(t, "at")
			text = string(runes[:at]) + rapid.SampledFrom([]string{"\n", "\r\n", " ", "\t", "\u00a0", "\u200b", "\u00ad"}).Draw(t, "break") + string(runes[at:])
		}
		text = rapid.SampledFrom([]string{"", "ticket   ", "$ peerlane get ", "\"", "“", "(", "`", "get it  peerlane get "}).Draw(t, "before") + text +
			rapid.SampledFrom([]string{"", "\"", "”", ".", ",", ")", "`", "\n\n", " ;"}).Draw(t, "after")
		k, err := Parse(text)
		require.NoError(t, err, "%q", text)
		require.Equal(t, want, k)
	})
}

// Any change of some characters is found, and has an error that says what to do.
func TestSomeChangesAreFound(t *testing.T) {
	whole := encoded(t, sample(t))
	rapid.Check(t, func(t *rapid.T) {
		b := []byte(whole)
		for range rapid.IntRange(1, 4).Draw(t, "changes") {
			at := rapid.IntRange(len(prefix), len(b)-1).Draw(t, "at")
			b[at] = digits[rapid.IntRange(0, len(digits)-1).Draw(t, "to")]
		}
		k, err := Parse(string(b))
		if string(b) == whole {
			require.NoError(t, err)
			return
		}
		require.Error(t, err, "%q", b)
		require.True(t, errors.Is(err, ErrDamaged) || errors.Is(err, ErrMalformed), "%v", err)
		require.Zero(t, k.Root)
		require.NotContains(t, err.Error(), whole[30:50], "the token is a secret")
	})
}

func TestADamageIsItselfAndErrDamaged(t *testing.T) {
	for _, d := range []damage{errCutOff, errExcess, errCharacter, errChecksum} {
		err := fmt.Errorf("%w: more", d)
		require.ErrorIs(t, err, d)
		require.ErrorIs(t, err, ErrDamaged)
		require.NotErrorIs(t, err, ErrNotTicket)
		for _, other := range []damage{errCutOff, errExcess, errCharacter, errChecksum} {
			require.Equal(t, d == other, errors.Is(err, other))
		}
		require.NotEmpty(t, d.Error())
	}
	require.NotErrorIs(t, ErrDamaged, errCutOff)
}
