package main

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
)

// pages are the texts whose console blocks are run.
var pages = []string{
	"README.md",
	"docs/CLI.md",
	"docs/NAT.md",
}

// A console block is a fenced block that begins with a prompt. The blocks below one heading are a story:
//
//	machine-a$ COMMAND     runs in the folder of that machine, and its terminal: a command that still runs is interrupted before
//	output                 must be printed, in this order; further lines may be
//	^C                     interrupts the command once all output above it was printed and the rest of the story has run
//	machine-a$ echo $?     the command before it may fail, and this is its exit code
//
// A command that prints "ready" runs in the background. Any other must end, with exit code 0. In output, "..." stands for any
// text, and a number with a unit for any number with a unit. In commands, placeholders stand for values that were printed last.
func TestTheConsoleBlocksOfThePagesHold(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be interrupted here")
	}
	t.Parallel() // beside the scripts
	for _, page := range pages {
		found := stories(t, page)
		require.NotEmpty(t, found, page)
		for _, s := range found {
			t.Run(page+"/"+s.heading, func(t *testing.T) {
				t.Parallel()
				s.run(t)
			})
		}
	}
}

// docRelay is the relay of the pages.
const docRelay = "/ip4/198.51.100.9/tcp/4001/p2p/12D3KooW..."

// elsewhere are commands that stories do not run, and what does.
var elsewhere = map[string]string{
	"go install ./cmd/peerlane": "the build of this test",
	"peerlane demo":             "testdata/demo/demo.txtar",

	// internal/test/reach runs all of docs/NAT.md behind NATs: here a machine need not have a network, a port of its own is not for a test,
	// and the stories' relay serves no DHT
	"peerlane relay --key relay.key": "TestThePageInTheLab",
	"peerlane doctor --relay /ip4/198.51.100.9/tcp/4001/p2p/12D3KooW... " +
		"--helper /ip4/203.0.113.7/tcp/4001/p2p/12D3KooW...": "TestThePageInTheLab",
	"peerlane call 12D3KooW... --data hello":                   "TestThePageInTheLab",
	"peerlane relay --key relay.key --dht=none":                "TestThePageInTheLab",
	"peerlane serve --key b.key --dht=" + docRelay:             "TestThePageInTheLab",
	"peerlane call 12D3KooW... --data hello --dht=" + docRelay: "TestThePageInTheLab",
}

// files are in the folder of each machine.
var files = map[string]string{
	"photos/one.jpg": strings.Repeat("one", 1000),
	"photos/two.jpg": strings.Repeat("two", 2000),
	"notes.txt":      "buy milk\n",
	"shared.key":     "correct horse battery",
}

type story struct {
	heading string
	lines   []consoleLine
}

type consoleLine struct {
	at      string // file and line number
	machine string
	command string
	want    []string
}

var prompt = regexp.MustCompile(`^(machine-[abc])?\$ (.*)$`)

// stories returns the stories of a page.
func stories(t *testing.T, page string) (found []story) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", page))
	require.NoError(t, err)
	s, fenced, console := story{}, false, false
	for n, line := range strings.Split(string(text), "\n") {
		match := prompt.FindStringSubmatch(line)
		switch {
		case strings.HasPrefix(line, "```"):
			fenced, console = !fenced, false
		case !fenced && strings.HasPrefix(line, "#"):
			if len(s.lines) > 0 {
				found = append(found, s)
			}
			s = story{heading: strings.TrimLeft(line, "# ")}
		case fenced && match != nil:
			console = true
			command := strings.ReplaceAll(match[2], "go run ./cmd/peerlane", "peerlane")
			s.lines = append(s.lines, consoleLine{at: fmt.Sprintf("%s:%d", page, n+1), machine: match[1], command: command})
		case console && line != "" && line != "...":
			last := &s.lines[len(s.lines)-1]
			last.want = append(last.want, line)
		}
	}
	if len(s.lines) > 0 {
		found = append(found, s)
	}
	return found
}

// run runs the lines of a story.
func (s story) run(t *testing.T) {
	v := &values{t: t, codes: make(map[string]int)}
	dirs, running := make(map[string]string), make(map[string]*process)
	user, err := os.MkdirTemp("", "user") // where all find the processes of their user: the path of a socket must be short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(user) }) // of the temporary ones
	for i, line := range s.lines {
		command, _, _ := strings.Cut(line.command, " #")
		if _, is := elsewhere[strings.TrimSpace(command)]; is {
			continue
		}
		if dirs[line.machine] == "" {
			dirs[line.machine] = machine(t)
		}
		if p := running[line.machine]; p != nil {
			p.finish(v)
		}
		p := launchLine(t, line, s.mayFail(i), dirs[line.machine], user, v)
		if running[line.machine] = p; !p.until(v, func() bool { return p.ready }) {
			p.ended(v)
			delete(running, line.machine)
		}
	}
	for _, p := range running {
		p.finish(v)
	}
}

// mayFail reports whether the exit code of a line is looked at by the next line on that machine.
func (s story) mayFail(i int) bool {
	for _, next := range s.lines[i+1:] {
		if next.machine == s.lines[i].machine {
			return strings.HasPrefix(next.command, "echo $?")
		}
	}
	return false
}

// machine returns a folder that stands for a machine.
func machine(t *testing.T) string {
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}

// values are what the placeholders in commands stand for.
type values struct {
	t                           *testing.T
	peer, address, ticket, node string // node is a relay
	codes                       map[string]int
}

var (
	printedPeer    = regexp.MustCompile(`^(?:peer +)?(12D3KooW\w{44})$`)
	printedAddress = regexp.MustCompile(`^address +(\S+/tcp/\d+/p2p/\w+)$`)
	printedTicket  = regexp.MustCompile(`^ticket +(plt1\w+)$`)

	aRelay   = regexp.MustCompile(`/ip4/198\.51\.100\.9/tcp/4001/p2p/12D3KooW\w*\.\.\.`)
	anAddr   = regexp.MustCompile(`/ip4/192\.0\.2\.7/tcp/4001/p2p/12D3KooW\w*\.\.\.`)
	aPeer    = regexp.MustCompile(`12D3KooW\w*\.\.\.`)
	aTicket  = regexp.MustCompile(`plt1\w*\.\.\.`)
	anyplace = regexp.MustCompile(`/ip4/0\.0\.0\.0/(tcp|udp)/4001`)
)

// learn remembers what a line of output says.
func (v *values) learn(line string) {
	for pattern, value := range map[*regexp.Regexp]*string{printedPeer: &v.peer, printedAddress: &v.address, printedTicket: &v.ticket} {
		if match := pattern.FindStringSubmatch(line); match != nil {
			*value = match[1]
		}
	}
}

// fill returns a line's command with values for its placeholders.
func (v *values) fill(line consoleLine) string {
	if v.node == "" && aRelay.MatchString(line.command) {
		h := testnet.NewRelay(v.t, testnet.Relay).Host()
		v.node = h.Addrs()[0].String() + "/p2p/" + h.ID().String()
	}
	command := anyplace.ReplaceAllString(line.command, "/ip4/127.0.0.1/$1/0")
	for _, p := range []struct {
		pattern *regexp.Regexp
		value   string
	}{{aRelay, v.node}, {anAddr, v.address}, {aPeer, v.peer}, {aTicket, v.ticket}} {
		if p.pattern.MatchString(command) {
			require.NotEmpty(v.t, p.value, "%s: nothing was printed that %q stands for", line.at, p.pattern.FindString(command))
			command = p.pattern.ReplaceAllString(command, p.value)
		}
	}
	return command
}

// process is a command that a story has started.
type process struct {
	line    consoleLine
	mayFail bool
	cmd     *exec.Cmd
	lines   *bufio.Scanner // of stdout and stderr

	out   strings.Builder
	seen  int  // lines of line.want
	ready bool // whether it has said so
	over  bool
}

// launchLine starts a command.
func launchLine(t *testing.T, line consoleLine, mayFail bool, dir, user string, v *values) *process {
	command := v.fill(line)
	if strings.HasPrefix(command, "peerlane ") {
		command = "exec " + command // so that a signal reaches it
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	p := &process{line: line, mayFail: mayFail}
	p.cmd = exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf("(exit %d); %s", v.codes[line.machine], command))
	p.cmd.Dir, p.cmd.Env = dir, append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+filepath.Join(dir, ".config"),
		"XDG_RUNTIME_DIR="+user)
	pipe, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.cmd.Stderr = p.cmd.Stdout
	p.lines = bufio.NewScanner(pipe)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		cancel()
		_ = p.cmd.Wait() // of one that has ended, an error
	})
	return p
}

// until reads output until done reports true, and returns false if it ended before.
func (p *process) until(v *values, done func() bool) bool {
	for !done() {
		if !p.lines.Scan() {
			return false
		}
		line := p.lines.Text()
		p.out.WriteString(line + "\n")
		p.ready = p.ready || line == "ready"
		if p.seen < len(p.line.want) && pattern(p.line.want[p.seen]).MatchString(line) {
			p.seen++
		}
		v.learn(line)
	}
	return true
}

// finish waits for the output that is wanted, and interrupts the command.
func (p *process) finish(v *values) {
	if p.over {
		return
	}
	isCut := func() bool { return p.seen == len(p.line.want) || p.line.want[p.seen] == "^C" }
	if p.until(v, isCut) {
		p.mayFail = p.mayFail || p.seen == len(p.line.want) // the page does not say how it ends
		_ = p.cmd.Process.Signal(os.Interrupt)              // it may have ended
		p.seen = min(p.seen+1, len(p.line.want))
		p.until(v, func() bool { return false })
	}
	p.ended(v)
}

// ended checks the end of a command whose output was read.
func (p *process) ended(v *values) {
	err := p.cmd.Wait()
	p.over = true
	v.codes[p.line.machine] = p.cmd.ProcessState.ExitCode()
	require.Empty(v.t, p.line.want[p.seen:], "%s: %s\nprinted:\n%s", p.line.at, p.line.command, p.out.String())
	if !p.mayFail {
		require.NoError(v.t, err, "%s: %s\nprinted:\n%s", p.line.at, p.line.command, p.out.String())
	}
}

// open are the parts of a line of output that may differ: "...", addresses, and figures with their units.
var open = regexp.MustCompile(`\.\.\.|/ip4/[0-9.]+/tcp/[0-9]+|\b[0-9][0-9.]* (files?|[kMG]?B/s|[kMG]?B|us|ms|s)\b`)

// pattern returns what matches a line of output.
func pattern(line string) *regexp.Regexp {
	text, at := "^", 0
	for _, part := range open.FindAllStringIndex(line, -1) {
		text += regexp.QuoteMeta(line[at:part[0]])
		switch line[part[0]] {
		case '.':
			text += `.*`
		case '/':
			text += `/ip4/[0-9.]+/tcp/[0-9]+`
		default:
			text += `[0-9.]+ [A-Za-z/]+`
		}
		at = part[1]
	}
	return regexp.MustCompile(text + regexp.QuoteMeta(line[at:]) + "$")
}

// manual returns the text of the manual.
func manual(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/CLI.md")
	require.NoError(t, err)
	return string(text)
}

// flagsOf returns the flags of each command, and those of all.
func flagsOf(t *testing.T) (of map[string]map[string]bool, all map[string]bool) {
	t.Helper()
	parser, err := kong.New(&cli{}, kong.Vars{"tag": defaultTag, "version": versionText()})
	require.NoError(t, err)
	of, all = make(map[string]map[string]bool), map[string]bool{"--help": true}
	for _, c := range parser.Model.Children {
		of[c.Name] = make(map[string]bool)
		for _, f := range c.Flags {
			of[c.Name]["--"+f.Name], all["--"+f.Name] = true, true
			if f.Tag.Negatable != "" {
				of[c.Name]["--no-"+f.Name], all["--no-"+f.Name] = true, true
			}
			if f.Short != 0 {
				of[c.Name]["-"+string(f.Short)] = true
			}
		}
	}
	return of, all
}

var (
	anyFlag   = regexp.MustCompile(`(?m)(?:^|[^-\w])(--[a-z][a-z-]*)`)
	quoted    = regexp.MustCompile("`(--?[a-z][a-z-]*)`")
	commands  = regexp.MustCompile(`(?m)^\| flag of (.*?) \|`)
	word      = regexp.MustCompile(`[a-z]+`)
	firstCell = regexp.MustCompile(`(?m)^\| (.*?) \|`)
	exitCode  = regexp.MustCompile(`(?m)^\| (\d+) \|`)
)

// The manual has a section for each command, or for several. The flags in its tables are flags of one of them, or of one that the table's head
// names, and others are flags of some.
func TestTheManualNamesCommandsAndFlags(t *testing.T) {
	of, all := flagsOf(t)
	for _, found := range anyFlag.FindAllStringSubmatch(manual(t), -1) {
		require.Contains(t, all, found[1])
	}
	described := make(map[string]bool)
	for section := range strings.SplitSeq(manual(t), "\n## ") {
		heading, body, _ := strings.Cut(section, "\n")
		names, isCommand := strings.CutPrefix(heading, "peerlane ")
		if !isCommand {
			continue
		}
		known := make(map[string]bool)
		for name := range strings.SplitSeq(strings.ReplaceAll(names, " and ", ", "), ", ") {
			require.Contains(t, of, name)
			described[name] = true
			maps.Copy(known, of[name])
		}
		for _, head := range commands.FindAllStringSubmatch(body, -1) {
			for _, name := range word.FindAllString(head[1], -1) {
				require.Contains(t, of, name)
				maps.Copy(known, of[name])
			}
		}
		for _, cell := range firstCell.FindAllStringSubmatch(body, -1) {
			for _, found := range quoted.FindAllStringSubmatch(cell[1], -1) {
				require.Contains(t, known, found[1], "section %q", heading)
			}
		}
	}
	require.Len(t, described, len(of), "%v", described)
	require.Contains(t, manual(t), fmt.Sprintf("\n%d steps, all ok", len(steps)*len(demoTransports)))
}

func TestTheManualListsTheExitCodes(t *testing.T) {
	var listed []int
	for _, row := range exitCode.FindAllStringSubmatch(manual(t), -1) {
		code, err := strconv.Atoi(row[1])
		require.NoError(t, err)
		listed = append(listed, code)
	}
	require.Equal(t, []int{0, exitLocal, exitUsage, exitUnreachable, exitNotServed, exitRefused, exitTimeout, exitHandler,
		exitNoRoom, exitUnknown, exitFiles, exitInterrupted}, listed)
}
