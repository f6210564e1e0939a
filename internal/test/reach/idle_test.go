//go:build linux

package reach

import (
	"flag"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/peerlane/peerlane/internal/nat"
	"github.com/peerlane/peerlane/internal/test/natlab"
)

var idle = flag.Duration("idle", 0, "how long to measure what idle commands cost; 0: not at all")

// settled is how long a command may be busy with what it does at its start.
const settled = time.Minute

// mostIdle is the CPU time that an idle command may take in an hour.
const mostIdle = 20 * time.Second

// Idle commands take little CPU time, and send little: what finds peers, and what cares for the paths of a session.
func TestIdleCommandsCostLittle(t *testing.T) {
	if *idle == 0 {
		t.Skip("make nightly runs it: -idle says for how long")
	}
	lab := natlab.New(t)
	at := newDHT(t, lab, 3, 0)
	router := func() *natlab.Router {
		r := lab.Router(lab.Internet, &natlab.RouterOptions{NAT: &nat.Easy, Version: 4})
		r.Link().Set(natlab.Conditions{Delay: oneWay})
		return r
	}
	lan, served, asks := router(), router(), router()
	alone := start(t, lab.Host(lan.LAN), "serve")
	alone.await(`^ready$`)
	serve := start(t, lab.Host(served.LAN), "serve", "--dht="+at)
	id, _ := serve.await(`^peer     (12D3KooW\S+)$`)
	serve.await(`^ready$`)
	ping := start(t, lab.Host(asks.LAN), "ping", "--dht="+at, id[1], "-i", (settled + *idle + time.Minute).String(), "-c", "2")
	ping.await(`: direct, (tcp|quic-v1)`)

	all := []struct {
		name   string
		p      *program
		router *natlab.Router
	}{{"mDNS", alone, lan}, {"DHT, mDNS, a reservation and a session", serve, served}, {"DHT, mDNS and a session", ping, asks}}
	time.Sleep(settled)
	before := make([]time.Duration, len(all))
	moved := make([]int64, len(all))
	for i, c := range all {
		before[i], moved[i] = cpu(t, c.p), c.router.Link().Sent()+c.router.Link().Received()
	}
	time.Sleep(*idle)
	for i, c := range all {
		hours := idle.Hours()
		used := time.Duration(float64(cpu(t, c.p)-before[i]) / hours)
		bytes := float64(c.router.Link().Sent()+c.router.Link().Received()-moved[i]) / hours
		t.Logf("%s: in an hour %v of CPU time, %.2f MB sent and received over the internet", c.name, used.Round(10*time.Millisecond), bytes/1e6)
		require.Less(t, used, mostIdle, c.name)
	}
}

// cpu returns the CPU time that a program has used. The lab's processes have numbers of their own that /proc does not know, so it asks for
// the clock of the process, whose number clock_getcpuclockid(3) would return.
func cpu(t *testing.T, p *program) time.Duration {
	t.Helper()
	var at unix.Timespec
	require.NoError(t, unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|2), &at))
	return time.Duration(at.Nano())
}
