// Command peerlane shows and uses the module peerlane: it proves it on this machine (demo), serves and makes calls between
// peers (serve, call, ping), sends files (send, get, push, receive), shows what runs (status, top, snapshot), keeps their
// identities (id), says why a peer is not reached (explain), and checks the network (doctor).
//
//	peerlane demo
//	peerlane serve --exec tr a-z A-Z
//	peerlane call /ip4/192.0.2.7/udp/40123/quic-v1/p2p/12D3KooW... --data hello
//	peerlane send photos
//	peerlane get plt1... ~/photos
//
// See peerlane --help for the exit codes.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

const description = `Calls, messages, streams and files between peers that are named by their Peer ID.

Exit codes: 0 done; 1 something on this machine failed; 2 wrong usage; 3 the peer cannot be reached; 4 the peer does not
serve the tag, or does not know the ticket; 5 the peer or the pre-shared key refused; 6 the time was up; 7 the peer's handler
answered with an error, or its disk failed; 8 there is no room, the peer is going away, or a size limit was passed; 9 the
connection was lost and it is not known whether the call ran; 10 files cannot be sent or kept as they are: a name, something
that is in the way, a change, a wrong content, and at the sender what it has left out; 130 interrupted.`

// cli is the command line.
type cli struct {
	Version kong.VersionFlag `help:"Show the version."`

	Demo     demoCmd     `cmd:"" help:"Prove every lane between two hosts on this machine, over TCP and over QUIC."`
	Serve    serveCmd    `cmd:"" help:"Serve calls on a tag, until interrupted."`
	Call     callCmd     `cmd:"" help:"Call a peer, and write its response to stdout."`
	Ping     pingCmd     `cmd:"" help:"Measure the round trip to a peer that serves a tag."`
	Send     sendCmd     `cmd:"" help:"Send files and folders to the peer that gets the ticket that this prints. With --key and a fixed --listen port, the same files have the same ticket after a restart."`
	Get      getCmd      `cmd:"" help:"Download by ticket. Run it again to resume."`
	Push     pushCmd     `cmd:"" help:"Push files and folders to a peer that runs receive."`
	Receive  receiveCmd  `cmd:"" help:"Accept the files that peers push."`
	Relay    relayCmd    `cmd:"" help:"Relay connections for peers behind NATs, until interrupted."`
	Explain  explainCmd  `cmd:"" help:"Say why a peer can or cannot be reached, and what helps."`
	Doctor   doctorCmd   `cmd:"" help:"Say what this machine's network lets through, and who gets a direct path."`
	Status   statusCmd   `cmd:"" help:"Show what a running serve, relay, send or receive of this user does."`
	Top      topCmd      `cmd:"" help:"Watch what a running serve, relay, send or receive of this user does, on the terminal."`
	Snapshot snapshotCmd `cmd:"" help:"Print what a running serve, relay, send or receive of this user does as JSON, or a profile of it."`
	ID       idCmd       `cmd:"" name:"id" help:"Show the Peer ID of a key file; make the file if there is none."`
}

// stdio is where a command reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// isTerminal reports whether out is one.
func (s stdio) isTerminal() bool {
	if o, ok := s.out.(*output); ok {
		return isTerminal(o.w)
	}
	return isTerminal(s.out)
}

// terminal returns what out writes to.
func (s stdio) terminal() io.Writer {
	if o, ok := s.out.(*output); ok {
		return o.w
	}
	return s.out
}

// failed returns why something could not be written to out, or nil.
func (s stdio) failed() error {
	if o, ok := s.out.(*output); ok {
		return o.failed()
	}
	return nil
}

// quietQUIC turns off the line that quic-go logs about small UDP buffers: serve -v says it better, and whoever sets the
// variable otherwise is obeyed.
const quietQUIC = "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING"

func main() {
	if _, set := os.LookupEnv(quietQUIC); !set {
		_ = os.Setenv(quietQUIC, "true") // at worst there is a line more
	}
	os.Exit(run(os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}))
}

// run runs the command line and returns the exit code.
func run(args []string, std stdio) int {
	std.out = &output{w: std.out}
	var c cli
	parsed, err := newParser(&c, std).Parse(args)
	if err != nil {
		hint := "peerlane --help lists the commands, peerlane COMMAND --help their flags"
		if missesEquals(args) {
			hint = hintEquals
		}
		fmt.Fprintf(std.err, "peerlane: %s\nhint: %s\n", flagNames.Replace(oneLine(err)), hint)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parsed.BindTo(ctx, (*context.Context)(nil))
	err = parsed.Run(std)
	if err == nil {
		err = std.failed()
	}
	if err == nil {
		return 0
	}
	code, hint := explain(err)
	if (code == exitUsage || code == exitLocal) && missesEquals(args) {
		hint = hintEquals
	}
	if code == exitUnreachable && hint != "" && mayRetry(err) && isOff(parsed, "retry") {
		hint += "; --retry waits until the peer can be reached"
	}
	fmt.Fprintf(std.err, "peerlane: %s\n", flagNames.Replace(safe(oneLine(err))))
	if hint != "" {
		fmt.Fprintf(std.err, "hint: %s\n", hint)
	}
	return code
}

// isOff reports whether the command has a switch of this name, and it is off.
func isOff(parsed *kong.Context, name string) bool {
	return slices.ContainsFunc(parsed.Flags(), func(f *kong.Flag) bool { return f.Name == name && parsed.FlagValue(f) == false })
}

const hintEquals = "--dht takes its value after an =, as in --dht=ADDR"

// missesEquals reports whether an address, or none, follows --dht without the = that it needs.
func missesEquals(args []string) bool {
	for i, arg := range args {
		if next := args[min(i+1, len(args)-1)]; arg == "--dht" && (next == dhtNone || next == dhtPublic || strings.Contains(next, "/p2p/")) {
			return true
		}
	}
	return false
}

// newParser returns what parses a command line into c.
func newParser(c *cli, std stdio) *kong.Kong {
	parser, err := kong.New(c, kong.Name("peerlane"), kong.Description(description),
		kong.Vars{"tag": defaultTag, "version": versionText()}, kong.Writers(std.out, std.err),
		kong.Resolvers(newConfigResolver()))
	if err != nil {
		panic("BUG: " + err.Error()) // the struct tags above are wrong
	}
	return parser
}

// flagNames are those of the fields that errors name.
var flagNames = strings.NewReplacer(
	"node: invalid value: Options.ListenAddrs:", "--listen:",
	"node: invalid value: Options.Relays:", "--relay:",
	"node: Options.Relays: invalid value: peer:", "--relay:",
	"node: invalid value: Limits.Peers:", "--peers:",
	"node: invalid value: RelayService.Data:", "--data:",
	"node: key file ", "--key ",
	"node: listen on ", "--listen ",
	"--allow: invalid value: peer: ", "--allow: ",
	"node: NetworkOptions.Helpers: invalid value: peer:", "--helper:",
	"node: NetworkOptions.Relays: invalid value: peer:", "--relay:",
	"node: invalid value: NetworkOptions.Helpers:", "--helper:",
	"node: invalid value: NetworkOptions.Relays:", "--relay:",
	"Options.Lanes is ", "--lanes is ",
	"invalid value: peer: ", "",
	"gater disallows connection to peer", "--local: not in a network of this machine",
)

// versionText returns what --version shows.
func versionText() string {
	version := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	return fmt.Sprintf("peerlane %s, %s %s/%s", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
