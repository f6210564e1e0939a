//go:build linux

package reach

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/nat"
	"github.com/peerlane/peerlane/internal/test/natlab"
)

var (
	whole       = flag.Bool("matrix", false, "every pair of NATs, over both transports, instead of one pair, and all that happens to sessions")
	tries       = flag.Int("tries", 1, "how often each pair is tried")
	size        = flag.Int("size", 2<<20, "bytes of the file that is sent")
	rtt         = flag.Duration("rtt", 40*time.Millisecond, "round trip between two hosts of the matrix")
	pairsAtOnce = flag.Int("pairs", 1, "how many pairs of the matrix are tried at once")
	loss        = flag.Float64("loss", 0, "share of packets that the link of each of both sides loses, each way")
	page        = flag.String("page", "", "write the results into this page")
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
func home(lab *natlab.Lab, kind *nat.Kind, link natlab.Conditions) *natlab.Host {
	h := lab.Host()
	place := lab.Internet
	if kind != nil {
		place = lab.Router(lab.Internet, &natlab.RouterOptions{NAT: kind, Version: 4}).LAN
	}
	h.Plug(place).Link().Set(link)
	return h
}

// A relay is peerlane relay on the internet.
type relay struct {
	*natlab.Interface
	*program
	host *natlab.Host
	key  string
	args []string // further ones
	id   string
}

// newRelay starts a relay with its defaults, or further arguments.
func newRelay(t *testing.T, lab *natlab.Lab, args ...string) *relay {
	t.Helper()
	r := &relay{host: lab.Host(), key: filepath.Join(t.TempDir(), "relay.key"), args: args}
	r.plug(t, lab)
	return r
}

// plug puts the relay on the internet, and starts it.
func (r *relay) plug(t *testing.T, lab *natlab.Lab) {
	t.Helper()
	r.Interface = r.host.Plug(lab.Internet)
	r.Link().Set(natlab.Conditions{Delay: oneWay})
	r.start(t)
}

// start starts the relay, again if it has ended.
func (r *relay) start(t *testing.T) {
	t.Helper()
	r.program = start(t, r.host, append([]string{"relay", "--key", r.key}, r.args...)...)
	found, _ := r.await(`^peer     (12D3KooW\S+)$`)
	r.id = found[1]
	r.await(`^address  /ip4/11\.0\.\S+/tcp/4001/p2p/12D3KooW\S+$`)
	r.await(`^address  /ip4/11\.0\.\S+/udp/4001/quic-v1/p2p/12D3KooW\S+$`)
	r.await(`^use it   --relay /ip4/11\.0\.\S+/tcp/4001/p2p/12D3KooW\S+$`)
	r.await(`^ready$`)
}

// at returns the relay's address over a transport, of IPv4.
func (r *relay) at(via string) string {
	return fmt.Sprintf("/ip4/%s/%s/p2p/%s", r.Addrs()[0], via, r.id)
}

// everywhere returns the relay's addresses, of IPv4 and IPv6, over QUIC.
func (r *relay) everywhere() []string {
	return []string{r.at("udp/4001/quic-v1"), fmt.Sprintf("/ip6/%s/udp/4001/quic-v1/p2p/%s", r.Addrs()[1], r.id)}
}

// How soon two sides are connected directly. Where packets are lost, or many holes are punched, one try in ten may take longer.
const (
	directSoon = 4 * time.Second // two sides talk after 2 s, and do so directly 2 s later
	directLost = 5 * time.Second // with losses
	enough     = 0.9
)

// Files get from one side to the other without the relay, which has libp2p's limits and would cut them after 128 KiB. Where no hole can be
// punched the command says so.
func TestSendAndGetThroughNATs(t *testing.T) {
	if !*whole { // then there are bounds of time
		t.Parallel()
	}
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, make([]byte, *size), 0o600))
	var mu sync.Mutex
	results := make(map[pair][]outcome)
	places := make(chan struct{}, *pairsAtOnce)
	t.Run("pairs", func(t *testing.T) {
		for _, p := range pairs() {
			t.Run(p.via[:3]+"/"+p.sender+"-"+p.getter, func(t *testing.T) {
				if *pairsAtOnce > 1 {
					t.Parallel()
				}
				places <- struct{}{}
				defer func() { <-places }()
				all := tryPair(t, p, file)
				mu.Lock()
				defer mu.Unlock()
				results[p] = all
			})
		}
	})
	t.Logf("%d bytes, round trip %v, losses %.0f %%\n%s", *size, *rtt, 100**loss, table(results))
	if *page != "" {
		require.NoError(t, writeTable(*page, table(results)))
	}
}

// tryPair tries p as often as it is asked, and returns what came out. It fails the test where too few were direct soon enough.
func tryPair(t *testing.T, p pair, file string) (all []outcome) {
	for range *tries {
		got := sendAndGet(t, p, file)
		all = append(all, got)
		if p.hopeless() {
			require.Equal(t, 3, got.code)
			continue
		}
		if *loss == 0 {
			require.Zero(t, got.code)
		}
		require.Less(t, got.relayed, int64(100_000))
	}
	if *whole && !p.hopeless() { // a single pair runs on any machine, however busy
		require.GreaterOrEqual(t, inTime(all), enough, "%v", all)
	}
	return all
}

// An outcome is the result of one send and get.
type outcome struct {
	code    int           // of get
	direct  time.Duration // from the start of get to the direct path; 0 if there was none
	took    time.Duration // from the start of get to its end
	relayed int64         // bytes that the relay has sent
}

// inTime returns the share of outcomes that were direct soon enough.
func inTime(all []outcome) float64 {
	limit, n := directSoon, 0
	if *loss > 0 {
		limit = directLost
	}
	for _, o := range all {
		if o.direct > 0 && o.direct < limit {
			n++
		}
	}
	return float64(n) / float64(len(all))
}

// sendAndGet sends a file between two hosts. The getter knows the ticket alone.
func sendAndGet(t *testing.T, p pair, file string) outcome {
	lab := natlab.New(t)
	r := newRelay(t, lab)
	r.Link().Set(natlab.Conditions{Delay: *rtt / 4})
	link := natlab.Conditions{Delay: *rtt / 4, Loss: *loss}
	send := start(t, home(lab, p.senders, link), "send", "--relay", r.at(p.via), file)
	ticket, _ := send.await(`^ticket   (\S+)`)
	send.await(`^ready$`)
	get := start(t, home(lab, p.getters, link), "get", ticket[1], t.TempDir())
	o := outcome{code: get.wait(patience + time.Duration(*size)*time.Microsecond), took: time.Since(get.began)}
	o.relayed = r.Link().Sent()
	if o.code == 0 {
		_, o.direct = get.await(`^path     direct, (tcp|quic-v1)`)
		require.Zero(t, send.wait(patience))
	} else {
		get.await(`^hint: the NATs let no direct path through: --allow-relay`)
	}
	t.Logf("direct after %v, all after %v, %d KB over the relay", o.direct.Round(time.Millisecond), o.took.Round(time.Millisecond), o.relayed/1000)
	return o
}

// table returns the results as a table of Markdown: how many of the tries were direct, the median of the time until they were, and of large files
// that of the throughput.
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
	text += fmt.Sprintf(", %.1f s", median(direct, func(o outcome) float64 { return o.direct.Seconds() }))
	if *size >= 16<<20 {
		text += fmt.Sprintf(", %.0f MB/s", median(direct, func(o outcome) float64 {
			return float64(*size) / 1e6 / (o.took - o.direct).Seconds()
		}))
	}
	return text
}

func median(all []outcome, of func(outcome) float64) float64 {
	var values []float64
	for _, o := range all {
		values = append(values, of(o))
	}
	slices.Sort(values)
	return values[len(values)/2]
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
