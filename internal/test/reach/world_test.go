//go:build linux

package reach

import (
	"bytes"
	"flag"
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
	"github.com/peerlane/peerlane/internal/test/procs"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		fmt.Fprintln(os.Stderr, play(role))
		os.Exit(1)
	}
	if flag.Parse(); !*whole { // the others have bounds of time
		procs.Parallel(5)
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
	line   []byte // of stdout and stderr, as far as it has come
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
		if p.line != nil { // it ends within a line
			_, _ = p.Write([]byte("\n"))
		}
	}()
	t.Cleanup(func() {
		p.kill()
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
	p.line = append(p.line, b...)
	for {
		line, rest, ok := bytes.Cut(p.line, []byte("\n"))
		if !ok {
			break
		}
		p.stamps = append(p.stamps, stamp{time.Since(p.began), string(line)})
		p.line = rest
	}
	if len(p.line) == 0 {
		p.line = nil
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

// lines returns all lines.
func (p *program) lines() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for _, s := range p.stamps {
		b.WriteString(s.line + "\n")
	}
	return b.String()
}

// took returns how long it has run until its last line.
func (p *program) took() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.stamps) == 0 {
		return 0
	}
	return p.stamps[len(p.stamps)-1].at
}

// await waits for a line that matches, and returns the submatches and the time of the line.
func (p *program) await(expression string) ([]string, time.Duration) {
	p.t.Helper()
	return p.awaitAfter(expression, 0)
}

// awaitAfter is await for lines that were complete after a time.
func (p *program) awaitAfter(expression string, after time.Duration) ([]string, time.Duration) {
	p.t.Helper()
	found, at := p.seek(expression, after, patience)
	if found == nil {
		require.FailNow(p.t, "no such line", "%q in %s", expression, p.text())
	}
	return found, at
}

// seek is awaitAfter that returns nil when no such line comes in time, or the program has ended.
func (p *program) seek(expression string, after, most time.Duration) ([]string, time.Duration) {
	re := regexp.MustCompile(expression)
	timeout := time.After(most)
	for seen := 0; ; {
		p.mu.Lock()
		grown, fresh := p.grown, p.stamps[seen:]
		seen = len(p.stamps)
		p.mu.Unlock()
		for _, s := range fresh {
			if s.at < after {
				continue
			}
			if m := re.FindStringSubmatch(s.line); m != nil {
				return m, s.at
			}
		}
		select {
		case <-grown:
			continue
		case <-p.done:
		case <-timeout:
		}
		return nil, 0
	}
}

// kill ends the program at once.
func (p *program) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
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
