//go:build linux

package reach

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/nat"
	"github.com/peerlane/peerlane/internal/test/natlab"
)

// A typed line of a page is a command, the machine that it runs on, and what the page says that it prints.
type typed struct {
	machine, command string
	prints           []string
}

var prompt = regexp.MustCompile(`^(machine-[abc])\$ peerlane (.*)$`)

// consoles returns the commands of each console block of a page.
func consoles(t *testing.T, page string) (blocks [][]typed) {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	for i, block := range strings.Split(string(text), "```") {
		if i%2 == 0 || !strings.HasPrefix(block, "\nmachine-") {
			continue
		}
		var lines []typed
		for line := range strings.Lines(strings.TrimSpace(block)) {
			line = strings.TrimSuffix(line, "\n")
			if m := prompt.FindStringSubmatch(line); m != nil {
				lines = append(lines, typed{machine: m[1], command: m[2]})
			} else if line != "..." {
				last := &lines[len(lines)-1]
				last.prints = append(last.prints, line)
			}
		}
		blocks = append(blocks, lines)
	}
	return blocks
}

// What differs in the lines of a page each time: what is left out, addresses, and figures with their units.
var differs = regexp.MustCompile(`\.\.\.|\b\d+(\.\d+){3}\b|\b\d[\d.]* (files?|[kMG]?B/s|[kMG]?B|ms|s)\b`)

// printed returns what matches a line of a page.
func printed(line string) string {
	text, at := "^", 0
	for _, part := range differs.FindAllStringIndex(line, -1) {
		text += regexp.QuoteMeta(line[at:part[0]]) + ".*"
		at = part[1]
	}
	return text + regexp.QuoteMeta(line[at:]) + "$"
}

// A desk is the machines at which somebody types what a page says.
type desk struct {
	t        *testing.T
	machines map[string]*natlab.Host
	running  map[string]*program // by machine
	values   map[string]string   // for what the page leaves out
}

// newDesk returns three machines: one on the internet, and two at home, in one home or in two, behind easy NATs.
func newDesk(t *testing.T, lab *natlab.Lab, oneHome bool) *desk {
	link := natlab.Conditions{Delay: oneWay}
	d := &desk{t: t, running: make(map[string]*program), values: make(map[string]string), machines: map[string]*natlab.Host{
		"machine-a": home(lab, &nat.Easy, link), "machine-b": home(lab, &nat.Easy, link), "machine-c": lab.Host(lab.Internet),
	}}
	if oneHome {
		lan := lab.Router(lab.Internet, natlab.Home(nat.Easy)).LAN
		d.machines["machine-a"], d.machines["machine-b"] = lab.Host(lan), lab.Host(lan)
	}
	return d
}

// What a page says instead of what was printed.
const (
	pageRelay  = "/ip4/198.51.100.9/tcp/4001/p2p/12D3KooW..."
	pageHelper = "/ip4/203.0.113.7/tcp/4001/p2p/12D3KooW..."
	pagePeer   = "12D3KooW..."
	pageTicket = "plt1..."
)

// listens are the commands that run until they are interrupted, or have done their work.
var listens = []string{"relay", "serve", "send", "receive"}

// types runs a command as the page has it, and checks what it prints.
func (d *desk) types(line typed) {
	d.t.Helper()
	args := line.command
	for _, left := range []string{pageRelay, pageHelper, pagePeer, pageTicket} { // a Peer ID is part of those before
		if strings.Contains(args, left) {
			require.NotEmpty(d.t, d.values[left], "%s: %s", line.command, left)
			args = strings.ReplaceAll(args, left, d.values[left])
		}
	}
	if before := d.running[line.machine]; before != nil {
		before.kill()
	}
	path, err := command()
	require.NoError(d.t, err)
	cmd := exec.Command(path, strings.Fields(args)...)
	cmd.Dir = d.t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+cmd.Dir, "XDG_CONFIG_HOME="+cmd.Dir)
	require.NoError(d.t, os.WriteFile(filepath.Join(cmd.Dir, "notes.txt"), []byte("buy milk\n"), 0o600))
	p := run(d.t, d.machines[line.machine], cmd)
	d.running[line.machine] = p
	if slices.Contains(listens, cmd.Args[1]) {
		p.await(`^ready$`)
	} else {
		require.Zero(d.t, p.wait(patience), "%s: %s", line.command, p.text())
	}
	for _, text := range line.prints {
		p.await(printed(text))
	}
	for text, expression := range map[string]string{
		pageRelay: `(?m)^use it   --relay (\S+)$`, pagePeer: `(?m)^peer     (\S+)$`, pageTicket: `(?m)^ticket   (\S+)$`,
	} {
		if found := regexp.MustCompile(expression).FindStringSubmatch(p.lines()); found != nil {
			d.values[text] = found[1]
		}
	}
}

// What docs/NAT.md says works as it is printed, between two homes.
func TestThePageInTheLab(t *testing.T) {
	inFull(t)
	blocks := consoles(t, "../../../docs/NAT.md")
	require.Len(t, blocks, 5)
	for name, story := range map[string][][]typed{
		"from nothing to a session": blocks[:2],
		"doctor":                    blocks[2:3],
		"in the local network":      blocks[3:4],
		"by a DHT":                  blocks[4:],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := natlab.New(t)
			d := newDesk(t, lab, name == "in the local network")
			if name == "doctor" {
				d.values[pageRelay], d.values[pageHelper] = newRelay(t, lab).at(transports[0]), newRelay(t, lab).at(transports[0])
			}
			for _, block := range story {
				for _, line := range block {
					d.types(line)
				}
			}
		})
	}
}
