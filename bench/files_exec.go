package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// missing returns program if it is not installed.
func missing(program string) string {
	if _, err := exec.LookPath(program); err != nil {
		return program
	}
	return ""
}

// command runs a program, and returns what it printed with its failure.
func command(ctx context.Context, program string, args ...string) error {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %q", program, err, firstLine(out))
	}
	return nil
}

// cpMover has cp copy the tree: no network, one process, and the kernel moves
// the bytes.
type cpMover struct{}

// Name returns the mover's name.
func (cpMover) Name() string { return "cp -r" }

// Missing returns cp if it is not installed.
func (cpMover) Missing() string { return missing("cp") }

// Start returns what runs cp.
func (cpMover) Start(t *fileTree) (runningMover, error) { return runningCp{t.dir}, nil }

// runningCp is a started cpMover.
type runningCp struct{ from string }

// Move runs cp.
func (s runningCp) Move(ctx context.Context, to string) error {
	return command(ctx, "cp", "-r", s.from, to)
}

// Stop does nothing.
func (runningCp) Stop() error { return nil }

// rsyncMover has rsync fetch the tree from an rsync daemon on loopback: whole
// files, plaintext, a checksum of each file.
type rsyncMover struct{}

// Name returns the mover's name.
func (rsyncMover) Name() string { return "rsync -W" }

// Missing returns rsync if it is not installed.
func (rsyncMover) Missing() string { return missing("rsync") }

// Start starts a daemon that has the tree.
func (rsyncMover) Start(t *fileTree) (runningMover, error) {
	s := new(runningRsync)
	if err := s.start(filepath.Dir(t.dir)); err != nil {
		return nil, s.fail(err)
	}
	return s, nil
}

// runningRsync is a started rsyncMover.
type runningRsync struct {
	addr   string
	daemon *exec.Cmd
	cleanups
}

// rsyncConfig is the daemon's: root's daemon must not become nobody, and no name
// is looked up for an address.
const rsyncConfig = `use chroot = no
uid = %d
gid = %d
reverse lookup = no
pid file = %s
log file = %s
[bench]
path = %s
read only = yes
`

func (s *runningRsync) start(from string) error {
	dir, err := os.MkdirTemp("", "peerlane-bench-rsync-")
	if err != nil {
		return err
	}
	s.push(func() error { return os.RemoveAll(dir) })
	config := filepath.Join(dir, "rsyncd.conf")
	text := fmt.Sprintf(rsyncConfig, os.Getuid(), os.Getgid(), filepath.Join(dir, "pid"), filepath.Join(dir, "log"), from)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	s.addr = net.JoinHostPort(loopback, port)
	ctx, stop := context.WithCancel(context.Background())
	s.daemon = exec.CommandContext(ctx, "rsync", "--daemon", "--no-detach", "--config="+config, "--address="+loopback, "--port="+port)
	s.daemon.Cancel = func() error { return s.daemon.Process.Signal(syscall.SIGTERM) }
	s.daemon.WaitDelay = 5 * time.Second
	if err := s.daemon.Start(); err != nil {
		stop()
		return err
	}
	s.push(func() error { stop(); _ = s.daemon.Wait(); return nil }) // it fails by the signal
	return s.listening(filepath.Join(dir, "log"))
}

// freePort returns a port that nobody listens on at this moment.
func freePort() (string, error) {
	ln, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	return port, errors.Join(err, ln.Close())
}

// poll is how often to look again.
const poll = 5 * time.Millisecond

// listening waits until the daemon takes connections. The failure has the first
// line of its log.
func (s *runningRsync) listening(log string) error {
	for end := time.Now().Add(startTimeout); ; time.Sleep(poll) {
		conn, err := net.Dial("tcp", s.addr)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(log) // what there is of it
			return fmt.Errorf("rsync daemon: %w: %q", err, firstLine(text))
		}
	}
}

// Move runs rsync.
func (s *runningRsync) Move(ctx context.Context, to string) error {
	return command(ctx, "rsync", "-a", "-W", "rsync://"+s.addr+"/bench/"+treeName, to)
}

// Stop ends the daemon when it has no processes left: theirs is the CPU that
// counts.
func (s *runningRsync) Stop() error {
	for end := time.Now().Add(time.Second); time.Now().Before(end) && hasChildren(s.daemon.Process.Pid); {
		time.Sleep(poll)
	}
	return s.run()
}

// hasChildren reports whether a process has any, as far as /proc tells.
func hasChildren(pid int) bool {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is good
	for _, path := range stats {
		stat, _ := os.ReadFile(path) // one that has ended is nobody's child
		if parent, ok := parentOf(stat); ok && parent == pid {
			return true
		}
	}
	return false
}

// parentOf returns the fourth field of a process's stat. The second is a name in
// parentheses, which may have any byte.
func parentOf(stat []byte) (int, bool) {
	for i := len(stat) - 1; i >= 0; i-- {
		if stat[i] != ')' {
			continue
		}
		var state string
		var parent int
		_, err := fmt.Sscan(string(stat[i+1:]), &state, &parent)
		return parent, err == nil
	}
	return 0, false
}

// toolVersions returns the first lines of what the programs say of themselves.
func toolVersions(ctx context.Context) map[string]string {
	versions := make(map[string]string)
	for _, program := range []string{"rsync", "cp"} {
		if out, err := exec.CommandContext(ctx, program, "--version").Output(); err == nil {
			versions[program] = firstLine(out)
		}
	}
	return versions
}
