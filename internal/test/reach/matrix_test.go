//go:build linux

package reach

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/nat"
	"github.com/peerlane/peerlane/internal/test/natlab"
)

var (
	whole = flag.Bool("matrix", false, "every pair of NATs, over both transports, instead of one pair, and all that happens to sessions")
	tries = flag.Int("tries", 1, "how often each pair is tried")
	page  = flag.String("page", "", "write the results into this page")
)

// inFull leaves a test to make reach: it waits for what takes its time.
func inFull(t *testing.T) {
	t.Helper()
	if !*whole {
		t.Skip("make reach runs it: it waits for the better part of a minute")
	}
}

// kinds are the NATs of the matrix; nil is none.
var kinds = []struct {
	name string
	nat  *nat.Kind
}{{"none", nil}, {"easiest", &nat.Easiest}, {"easy", &nat.Easy}, {"hard", &nat.Hard}}

// A pair is a case of the matrix.
type pair struct {
	via              string // the transport towards the relay, of the address that the sender is given
	sender, getter   string
	senders, getters *nat.Kind
}

// transports are those of the relay's addresses.
var transports = []string{"tcp/4001", "udp/4001/quic-v1"}

// pairs returns the cases to run.
func pairs() (all []pair) {
	for _, via := range transports {
		for _, s := range kinds {
			for _, g := range kinds {
				if *whole || s.name == "easy" && g.name == "easy" && via[0] == 'u' {
					all = append(all, pair{via, s.name, g.name, s.nat, g.nat})
				}
			}
		}
	}
	return all
}

// hopeless reports whether not even many holes lead through both NATs.
func (p pair) hopeless() bool {
	return p.sender == "hard" && p.getter == "hard"
}

// oneWay is the delay of every host's link: between two hosts a packet takes twice as long, and a round trip four times.
const oneWay = 10 * time.Millisecond

// home returns a host behind a NAT, or one on the internet if kind is nil. It has IPv4 alone.
func home(lab *natlab.Lab, kind *nat.Kind) *natlab.Host {
	h := lab.Host()
	place := lab.Internet
	if kind != nil {
		place = lab.Router(lab.Internet, &natlab.RouterOptions{NAT: kind, Version: 4}).LAN
	}
	h.Plug(place).Link().Set(natlab.Conditions{Delay: oneWay})
	return h
}

// A relay is peerlane relay on the internet.
type relay struct {
	*natlab.Interface
	*program
	host *natlab.Host
	key  string
	id   string
}

// newRelay starts a relay with its defaults.
func newRelay(t *testing.T, lab *natlab.Lab) *relay {
	t.Helper()
	r := &relay{host: lab.Host(), key: filepath.Join(t.TempDir(), "relay.key")}
	r.Interface = r.host.Plug(lab.Internet)
	r.Link().Set(natlab.Conditions{Delay: oneWay})
	r.start(t)
	return r
}

// start starts the relay, again if it has ended.
func (r *relay) start(t *testing.T) {
	t.Helper()
	r.program = start(t, r.host, "relay", "--key", r.key)
	found, _ := r.await(`^peer     (12D3KooW\S+)$`)
	r.id = found[1]
	r.await(`^address  /ip4/11\.0\.\S+/tcp/4001/p2p/12D3KooW\S+$`)
	r.await(`^address  /ip4/11\.0\.\S+/udp/4001/quic-v1/p2p/12D3KooW\S+$`)
	r.await(`^use it   --relay /ip4/11\.0\.\S+/tcp/4001/p2p/12D3KooW\S+$`)
	r.await(`^ready$`)
}

// at returns the relay's address over a transport.
func (r *relay) at(via string) string {
	return fmt.Sprintf("/ip4/%s/%s/p2p/%s", r.Addrs()[0], via, r.id)
}

// Files get from one side to the other without the relay, which has libp2p's limits and would cut them after 128 KiB. Where no hole can be
// punched the command says so.
func TestSendAndGetThroughNATs(t *testing.T) {
	const size = 2 << 20
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, make([]byte, size), 0o600))
	results := make(map[pair][]outcome)
	for _, p := range pairs() {
		for range *tries {
			t.Run(p.via[:3]+"/"+p.sender+"-"+p.getter, func(t *testing.T) {
				got := sendAndGet(t, p, file)
				results[p] = append(results[p], got)
				if p.hopeless() {
					require.Equal(t, 3, got.code)
					return
				}
				require.Zero(t, got.code)
				require.Less(t, got.took, 4*time.Second, "2 s until the two talk, and 2 s more until they do so directly")
				require.Less(t, got.relayed, int64(100_000))
			})
		}
	}
	t.Logf("\n%s", table(results))
	if *page != "" {
		require.NoError(t, writeTable(*page, table(results)))
	}
}

// An outcome is the result of one send and get.
type outcome struct {
	code    int // of get
	took    time.Duration
	relayed int64 // bytes that the relay has sent
}

// sendAndGet sends a file between two hosts. The getter knows the ticket alone.
func sendAndGet(t *testing.T, p pair, file string) outcome {
	lab := natlab.New(t)
	r := newRelay(t, lab)
	send := start(t, home(lab, p.senders), "send", "--relay", r.at(p.via), file)
	ticket, _ := send.await(`^ticket   (\S+)`)
	send.await(`^ready$`)
	get := start(t, home(lab, p.getters), "get", ticket[1], t.TempDir())
	o := outcome{code: get.wait(patience), took: time.Since(get.began)}
	o.relayed = r.Link().Sent()
	t.Logf("%v, %d KB over the relay", o.took.Round(time.Millisecond), o.relayed/1000)
	if o.code == 0 {
		get.await(`^path     direct, (tcp|quic-v1)`)
		require.Zero(t, send.wait(patience))
	} else {
		get.await(`^hint: the NATs let no direct path through: --allow-relay`)
	}
	return o
}

// table returns the results as a table of Markdown: how many of the tries were direct, and the median of the time until get had ended.
func table(results map[pair][]outcome) string {
	var b strings.Builder
	for _, via := range transports {
		fmt.Fprintf(&b, "| the relay over %s; sender below, getter right | %s |\n|---|%s\n", via[:3], names(" | "), strings.Repeat("---|", len(kinds)))
		for _, s := range kinds {
			fmt.Fprintf(&b, "| %s |", s.name)
			for _, g := range kinds {
				fmt.Fprintf(&b, " %s |", cell(results[pair{via, s.name, g.name, s.nat, g.nat}]))
			}
			b.WriteString("\n")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func names(between string) string {
	var all []string
	for _, k := range kinds {
		all = append(all, k.name)
	}
	return strings.Join(all, between)
}

func cell(all []outcome) string {
	direct := slices.DeleteFunc(slices.Clone(all), func(o outcome) bool { return o.code != 0 })
	if len(all) == 0 {
		return "-"
	}
	text := fmt.Sprintf("%d of %d", len(direct), len(all))
	if len(direct) == 0 {
		return text
	}
	slices.SortFunc(direct, func(a, b outcome) int { return int(a.took - b.took) })
	return fmt.Sprintf("%s, %.1f s", text, direct[len(direct)/2].took.Seconds())
}

// The lines of a page between which the table is.
const (
	tableBegins = "<!-- the table of internal/test/reach begins -->\n"
	tableEnds   = "<!-- and ends -->\n"
)

func writeTable(page, table string) error {
	b, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), tableBegins)
	_, after, there := strings.Cut(rest, tableEnds)
	if !ok || !there {
		return fmt.Errorf("%s has no place for the table", page)
	}
	return os.WriteFile(page, []byte(before+tableBegins+"\n"+table+tableEnds+after), 0o644)
}
