package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts run peerlane as processes of their own, which is this test binary under another name: see TestMain.
//
//	serve NAME ARGS...   starts peerlane serve, waits for "ready", sets $NAME_addr, $NAME_listen and $NAME_peer
//	start NAME CMD...    starts peerlane send, receive or relay likewise, and sets $NAME_ticket as well, if there is one
//	[!] finish NAME      waits for its end, wants exit code 0, and leaves NAME.out and NAME.err
//	[!] quit NAME        sends SIGINT, waits, wants exit code 0, and leaves NAME.out and NAME.err
//	signal NAME          sends SIGINT
//	await NAME TEXT      waits until a line of its stdout begins with TEXT
//	exits CODE CMD...    runs a command, and wants this exit code
//	appears GLOB SIZE    waits for a file of so many bytes
//	same DIR DIR         wants two folders with the same files, modes and times
func TestScripts(t *testing.T) {
	t.Parallel() // beside the pages' stories
	runScripts(t, "testdata/script")
	if *wholeDemo || testing.CoverMode() != "" {
		runScripts(t, "testdata/demo")
	}
}

// The demo takes seconds of both processors. make demo runs it, and its script.
var wholeDemo = flag.Bool("demo", false, "run the script of the whole demo too")

// runScripts runs the scripts of a folder.
func runScripts(t *testing.T, dir string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be interrupted here")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Values[serversKey{}] = servers{}
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, ".config"))
			env.Setenv("XDG_RUNTIME_DIR", env.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": cmdServe, "quit": cmdQuit, "signal": cmdSignal, "await": cmdAwait, "exits": cmdExits,
			"start": cmdStart, "finish": cmdFinish, "appears": cmdAppears, "same": cmdSame,
		},
	})
}

// servers are the background servers of a script, by name.
type (
	serversKey struct{}
	servers    map[string]*background
)

// background is one peerlane serve.
type background struct {
	cmd    *exec.Cmd
	lines  *bufio.Scanner // of its stdout
	out    strings.Builder
	stderr bytes.Buffer
}

// until reads stdout up to a line that begins with text, and returns that line.
func (b *background) until(ts *testscript.TestScript, text string) string {
	for b.lines.Scan() {
		b.out.WriteString(b.lines.Text() + "\n")
		if strings.HasPrefix(b.lines.Text(), text) {
			return b.lines.Text()
		}
	}
	err := b.cmd.Wait()
	ts.Fatalf("stdout ended before %q: %v\n%s%s", text, err, b.out.String(), b.stderr.String())
	return ""
}

func server(ts *testscript.TestScript, args []string) *background {
	if len(args) == 0 {
		ts.Fatalf("want the name of a server")
	}
	b := ts.Value(serversKey{}).(servers)[args[0]]
	if b == nil {
		ts.Fatalf("no server %q", args[0])
	}
	return b
}

func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: serve NAME ARGS...")
	}
	b := launch(ts, args[0], append([]string{"serve"}, args[1:]...))
	b.set(ts, args[0], map[string]string{"peer": "peer", "address": "addr"})
	b.untilOnce(ts, "ready")
}

func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME COMMAND ARGS...")
	}
	b := launch(ts, args[0], args[1:])
	names := map[string]string{"peer": "peer", "ticket": "ticket"}
	if args[1] == "receive" || args[1] == "relay" {
		names = map[string]string{"peer": "peer", "address": "addr"}
	}
	b.set(ts, args[0], names)
	b.untilOnce(ts, "ready")
}

// launch starts peerlane in the background.
func launch(ts *testscript.TestScript, name string, args []string) *background {
	b := &background{cmd: exec.Command("peerlane", args...)}
	b.cmd.Env = os.Environ()
	for _, name := range []string{"XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "PSK_COST", "SECRET", "PEERLANE_PSK"} {
		b.cmd.Env = append(b.cmd.Env, name+"="+ts.Getenv(name))
	}
	b.cmd.Dir, b.cmd.Stderr = ts.MkAbs("."), &b.stderr
	stdout, err := b.cmd.StdoutPipe()
	ts.Check(err)
	b.lines = bufio.NewScanner(stdout)
	ts.Check(b.cmd.Start())
	ts.Value(serversKey{}).(servers)[name] = b
	ts.Defer(func() {
		_ = b.cmd.Process.Kill() // one that was stopped is gone already
		_ = b.cmd.Wait()
	})
	return b
}

// set sets $NAME_x to what the line that begins with a word says, for each word and x.
func (b *background) set(ts *testscript.TestScript, name string, words map[string]string) {
	for word, suffix := range words {
		_, value, _ := strings.Cut(b.untilOnce(ts, word), " ")
		ts.Setenv(name+"_"+suffix, strings.TrimSpace(value))
	}
	listen, _, _ := strings.Cut(ts.Getenv(name+"_addr"), "/p2p/")
	ts.Setenv(name+"_listen", listen)
}

// untilOnce is until, but looks at the lines that were read before first.
func (b *background) untilOnce(ts *testscript.TestScript, text string) string {
	for line := range strings.Lines(b.out.String()) {
		if strings.HasPrefix(line, text) {
			return line
		}
	}
	return b.until(ts, text)
}

func cmdQuit(ts *testscript.TestScript, neg bool, args []string) {
	_ = server(ts, args).cmd.Process.Signal(os.Interrupt) // a failure shows in the exit code
	cmdFinish(ts, neg, args)
}

func cmdFinish(ts *testscript.TestScript, neg bool, args []string) {
	b := server(ts, args)
	for b.lines.Scan() {
		b.out.WriteString(b.lines.Text() + "\n")
	}
	err := b.cmd.Wait()
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".out"), []byte(b.out.String()), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".err"), b.stderr.Bytes(), 0o600))
	if (err != nil) != neg {
		ts.Fatalf("%s: %v\n%s%s", args[0], err, b.out.String(), b.stderr.String())
	}
}

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: signal NAME")
	}
	ts.Check(server(ts, args).cmd.Process.Signal(os.Interrupt))
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await NAME TEXT")
	}
	server(ts, args).untilOnce(ts, args[1])
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}
