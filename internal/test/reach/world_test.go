//go:build linux

package reach

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/natlab"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		fmt.Fprintln(os.Stderr, play(role))
		os.Exit(1)
	}
	os.Exit(natlab.Main(m))
}

// command builds the command, once.
var command = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "peerlane-reach-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "peerlane")
	cmd := exec.Command("go", "build", "-o", path, "github.com/peerlane/peerlane/cmd/peerlane")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

// patience is how long a line of a program is waited for that must come.
const patience = 60 * time.Second

// A program is a command that runs on a host of the lab.
type program struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended; only after done

	mu     sync.Mutex
	out    bytes.Buffer // stdout and stderr
	grown  chan struct{}
	began  time.Time
	stamps []stamp
}

// A stamp says when a line was complete.
type stamp struct {
	at   time.Duration
	line string
}

// start runs the command on a host, with a home of its own.
func start(t *testing.T, h *natlab.Host, args ...string) *program {
	t.Helper()
	path, err := command()
	require.NoError(t, err)
	home := t.TempDir()
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home)
	cmd.Dir = home
	return run(t, h, cmd)
}

// run runs a command on a host until the test ends.
func run(t *testing.T, h *natlab.Host, cmd *exec.Cmd) *program {
	t.Helper()
	p := &program{t: t, cmd: cmd, done: make(chan struct{}), grown: make(chan struct{}), began: time.Now()}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	require.NoError(t, h.Start(p.cmd))
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
		if t.Failed() {
			t.Logf("%s:\n%s", strings.Join(cmd.Args, " "), p.text())
		}
	})
	return p
}

// Write receives the program's output.
func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.Write(b)
	lines := strings.Split(p.out.String(), "\n")
	for _, line := range lines[len(p.stamps) : len(lines)-1] {
		p.stamps = append(p.stamps, stamp{time.Since(p.began), line})
	}
	close(p.grown)
	p.grown = make(chan struct{})
	return len(b), nil
}

// text returns all lines with the time of each.
func (p *program) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for _, s := range p.stamps {
		fmt.Fprintf(&b, "%6.2f %s\n", s.at.Seconds(), s.line)
	}
	return b.String()
}

// await waits for a line that matches, and returns the submatches and the time of the line.
func (p *program) await(expression string) ([]string, time.Duration) {
	p.t.Helper()
	return p.awaitAfter(expression, 0)
}

// awaitAfter is await for lines that were complete after a time.
func (p *program) awaitAfter(expression string, after time.Duration) ([]string, time.Duration) {
	p.t.Helper()
	re := regexp.MustCompile(expression)
	timeout := time.After(patience)
	for {
		p.mu.Lock()
		grown := p.grown
		for _, s := range p.stamps {
			if m := re.FindStringSubmatch(s.line); m != nil && s.at >= after {
				p.mu.Unlock()
				return m, s.at
			}
		}
		p.mu.Unlock()
		select {
		case <-grown:
			continue
		case <-p.done:
		case <-timeout:
		}
		require.FailNow(p.t, "no such line", "%q in %s", expression, p.text())
	}
}

// wait waits until the program has ended, and returns its exit code.
func (p *program) wait(most time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(most):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		<-p.done
		require.FailNow(p.t, "it runs on", "after %v: %s", most, p.text())
	}
	return p.cmd.ProcessState.ExitCode()
}
