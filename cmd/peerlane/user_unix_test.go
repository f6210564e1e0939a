//go:build unix

package main

import (
	"bufio"
	"bytes"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// nobody is a user who owns nothing.
const nobody = 65534

// world is a folder that any user may look into, with a copy of this program that any user may run.
type world struct {
	t   *testing.T
	dir string
	bin string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "peerlane") // t.TempDir is in a folder for its owner only
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error { // or a closed folder would stay
			if d != nil && d.IsDir() {
				_ = os.Chmod(path, 0o755)
			}
			return nil
		})
		require.NoError(t, os.RemoveAll(dir))
	})
	require.NoError(t, os.Chmod(dir, 0o755))
	self, err := os.Executable()
	require.NoError(t, err)
	from, err := os.Open(self)
	require.NoError(t, err)
	defer from.Close()
	bin := filepath.Join(dir, "peerlane") // by this name, TestMain is the program
	syscall.ForkLock.RLock()              // a process that another test starts meanwhile would keep it open, and it could not be run
	defer syscall.ForkLock.RUnlock()
	to, err := os.OpenFile(bin, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	require.NoError(t, err)
	_, err = io.Copy(to, from)
	require.NoError(t, err)
	require.NoError(t, to.Close())
	return &world{t, dir, bin}
}

// mine makes a folder of the user who runs commands.
func (w *world) mine(name string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	require.NoError(w.t, os.Mkdir(path, 0o755))
	if os.Geteuid() == 0 {
		require.NoError(w.t, os.Chown(path, nobody, nobody))
	}
	return path
}

// as returns a command of the program for a user who is not root, with a config folder.
func (w *world) as(config string, args ...string) *exec.Cmd {
	cmd := exec.Command(w.bin, args...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+config, "HOME="+config)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return cmd
}

// run runs the program as a user who is not root, with a config folder, and returns its exit code and what it has said.
func (w *world) run(config string, args ...string) (code int, text string) {
	w.t.Helper()
	cmd := w.as(config, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	return w.code(cmd.Run()), out.String()
}

// code returns the exit code of a command that has ended with err.
func (w *world) code(err error) int {
	w.t.Helper()
	var exit *exec.ExitError
	if err == nil {
		return 0
	}
	require.ErrorAs(w.t, err, &exit)
	return exit.ExitCode()
}

// sends has the process of the test send paths until the function that it returns is called, and returns the ticket.
func (w *world) sends(paths ...string) (ticket string, stop func()) {
	w.t.Helper()
	cmd := exec.Command(w.bin, append([]string{"send", "--keep", "--listen", "/ip4/127.0.0.1/tcp/0"}, paths...)...)
	cmd.Dir = w.dir
	out, err := cmd.StdoutPipe()
	require.NoError(w.t, err)
	require.NoError(w.t, cmd.Start())
	ticket = untilReady(w.t, out)
	stop = func() {
		_ = cmd.Process.Signal(os.Interrupt) // one that is gone has failed
		_, _ = io.Copy(io.Discard, out)
		require.NoError(w.t, cmd.Wait())
	}
	return ticket, stop
}

// write makes a file with its folders.
func (w *world) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	require.NoError(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(w.t, os.WriteFile(path, []byte(text), 0o644))
}

// allow changes the mode of a folder.
func (w *world) allow(name string, mode fs.FileMode) {
	w.t.Helper()
	require.NoError(w.t, os.Chmod(filepath.Join(w.dir, name), mode))
}

// is requires the content of a file and the mode of its folder, which may be closed to whoever looks.
func (w *world) is(name, text string, mode fs.FileMode) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	info, err := os.Stat(filepath.Dir(path))
	require.NoError(w.t, err)
	require.Equal(w.t, mode, info.Mode().Perm(), name)
	require.NoError(w.t, os.Chmod(filepath.Dir(path), mode|0o500))
	b, err := os.ReadFile(path)
	require.NoError(w.t, err)
	require.Equal(w.t, text, string(b), name)
	require.NoError(w.t, os.Chmod(filepath.Dir(path), mode))
}

// Root may do all, so that what another user may not is tried as one. Where this runs as no root, it is that one.
func TestFoldersThatMayNotBeWrittenArriveAndAreFilledAgain(t *testing.T) {
	t.Parallel() // it waits for processes
	w := newWorld(t)
	dst, config := w.mine("dst"), w.mine("config")
	get := func(want int, flags ...string) string {
		t.Helper()
		ticket, stop := w.sends("src")
		defer stop()
		code, text := w.run(config, append([]string{"get", ticket, dst}, flags...)...)
		require.Equal(t, want, code, text)
		return text
	}
	w.write("src/ro/a", "1")
	w.write("src/deep/er/b", "2")
	w.allow("src/ro", 0o555)
	w.allow("src/deep/er", 0o500)
	w.allow("src/deep", 0o555)
	get(0)
	w.is("dst/src/ro/a", "1", 0o555)
	require.Contains(t, get(0), "there ")

	w.allow("src/ro", 0o755)
	w.write("src/ro/new", "3")
	w.allow("src/ro", 0o555)
	require.Contains(t, get(exitFiles), "--flat")
	get(0, "--flat")
	w.is("dst/src/ro/new", "3", 0o555)
	w.allow("src/ro", 0o755)
	w.write("src/ro/a", "other")
	w.allow("src/ro", 0o555)
	require.Contains(t, get(exitFiles), "(exists)")
	w.is("dst/src/ro/a", "1", 0o555) // also when it comes to nothing
	get(0, "--overwrite")
	w.is("dst/src/ro/a", "other", 0o555)

	// Who sends must be able to list a folder, and root always is: another can only receive one of mode 300.
	if os.Geteuid() == 0 {
		w.allow("src/ro", 0o300)
		get(0, "--flat")
		w.is("dst/src/ro/new", "3", 0o300)
		require.Contains(t, get(0), "there ")
		w.is("dst/src/ro/new", "3", 0o300)
	} else {
		t.Log("not run: a folder of mode 300, which only root can send; package staging tests it for all")
	}
}

// What may not be read is left out, whether it was asked for by name or found, and whether anything else is sent or not.
func TestUnreadableFilesAreLeftOut(t *testing.T) {
	t.Parallel() // it waits for processes
	w := newWorld(t)
	config := w.mine("config")
	w.write("src/a", "1")
	w.write("src/no", "2")
	w.write("src/closed/x", "3")
	w.write("b", "4")
	require.NoError(t, os.Chmod(filepath.Join(w.dir, "src/no"), 0))
	w.allow("src/closed", 0)
	for _, c := range []struct {
		paths []string
		left  string
		get   string // empty: nothing is left to send
	}{
		{[]string{"src"}, "2 unreadable", "1 file"},
		{[]string{"src/no", "b"}, "1 unreadable", "1 file"},
		{[]string{"src/no", "b", "src/a", "src/closed"}, "2 unreadable", "2 files"},
		{[]string{"src/no"}, "1 unreadable", ""},
		{[]string{"src/closed"}, "1 unreadable", ""},
		{[]string{"src/closed/x", "src/no"}, "2 unreadable", ""},
	} {
		for _, flags := range [][]string{nil, {"--skip-special"}} {
			want := exitFiles
			if flags != nil {
				want = 0
			}
			args := append(append([]string{"send", "--listen", "/ip4/127.0.0.1/tcp/0"}, c.paths...), flags...)
			if c.get == "" {
				code, text := w.run(config, args...)
				require.Equal(t, want, code, "%v: %s", args, text)
				require.Contains(t, text, "left out "+c.left)
				require.NotContains(t, text, "ticket ")
				continue
			}
			cmd := w.as(config, args...)
			var said bytes.Buffer
			cmd.Stderr = &said
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			ticket := untilReady(t, out)
			code, text := w.run(config, "get", ticket, filepath.Join(w.mine("dst"), "in"))
			require.NoError(t, os.RemoveAll(filepath.Join(w.dir, "dst")))
			_, _ = io.Copy(io.Discard, out)
			require.Equal(t, want, w.code(cmd.Wait()), "%v: %s", args, said.String())
			require.Zero(t, code, text)
			require.Contains(t, text, c.get)
			require.Contains(t, text, ": "+c.left)
			require.Contains(t, said.String(), "left out ")
		}
	}
}

func TestAConfigFolderThatCannotBeWrittenCostsANote(t *testing.T) {
	t.Parallel() // it waits for processes
	w := newWorld(t)
	w.write("src/a", "1")
	w.write("file/peerlane", "not a folder")
	require.NoError(t, os.MkdirAll(filepath.Join(w.dir, "closed/peerlane"), 0o755))
	defer w.allow("closed", 0o755)
	w.allow("closed/peerlane", 0o555)
	w.allow("closed", 0o555)
	ticket, stop := w.sends("src")
	defer stop()
	for _, config := range []string{"closed", "file", "closed/none"} {
		code, text := w.run(filepath.Join(w.dir, config), "get", ticket, w.mine("dst-"+filepath.Base(config)))
		require.Zero(t, code, text)
		require.Contains(t, text, "note     ", config)
		w.is("dst-"+filepath.Base(config)+"/src/a", "1", 0o755)
	}
	config := w.mine("config")
	code, text := w.run(config, "get", ticket, w.mine("dst-good"))
	require.Zero(t, code, text)
	require.NotContains(t, text, "note")
}

// mounted mounts a file system for a test. Only root can; the rest is tested without.
func mounted(t *testing.T, dir, kind, device, options string) bool {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	cmd := exec.Command("mount", "-t", kind, "-o", options, device, dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Logf("not run on a real %s: %v: %s", kind, err, out)
		return false
	}
	t.Cleanup(func() { require.NoError(t, exec.Command("umount", dir).Run()) })
	require.NoError(t, os.Chmod(dir, 0o777))
	return true
}

func TestAHomeThatIsFullCostsANote(t *testing.T) {
	t.Parallel() // it waits for processes
	w := newWorld(t)
	home := filepath.Join(w.dir, "home")
	if !mounted(t, home, "tmpfs", "none", "size=64k") {
		t.Skip("only root can mount a disk that is full: see TestAConfigFolderThatCannotBeWrittenCostsANote")
	}
	w.write("src/a", "1")
	require.NoError(t, os.Mkdir(filepath.Join(home, "peerlane"), 0o777))
	require.NoError(t, os.Chmod(filepath.Join(home, "peerlane"), 0o777))
	require.Error(t, os.WriteFile(filepath.Join(home, "hog"), make([]byte, 1<<20), 0o600))
	ticket, stop := w.sends("src")
	defer stop()
	code, text := w.run(home, "get", ticket, w.mine("dst"))
	require.Zero(t, code, text)
	require.Contains(t, text, "note     ")
	require.Contains(t, text, "no space left")
}

func TestATransferThatHasNoRoomSaysWhoseAndKeepsNothing(t *testing.T) {
	t.Parallel() // it waits for processes
	w := newWorld(t)
	small := filepath.Join(w.dir, "small")
	if !mounted(t, small, "tmpfs", "none", "size=4m") {
		t.Skip("only root can mount a small disk: package transfer has one that says so")
	}
	w.write("big", string(make([]byte, 9<<20)))
	require.NoError(t, os.Truncate(filepath.Join(w.dir, "big"), 9<<20))
	ticket, stop := w.sends("big")
	defer stop()
	code, text := w.run(w.mine("config"), "get", ticket, small)
	require.Equal(t, exitNoRoom, code, text)
	require.Contains(t, text, "make room")
	require.NotContains(t, text, "kept")
	require.NotContains(t, text, "what has come")
	left, err := os.ReadDir(small)
	require.NoError(t, err)
	require.Empty(t, left)
}

// An ext2 with small inodes knows no time after 2038.
func TestWhatCameIsRecognisedOnARealExt2(t *testing.T) {
	t.Parallel() // it waits for processes
	w := newWorld(t)
	image := filepath.Join(w.dir, "image")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 8<<20))
	if out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext2", "-I", "128", image).CombinedOutput(); err != nil {
		t.Skipf("mke2fs: %v: %s; package transfer tests a disk that cuts times", err, out)
	}
	dst := filepath.Join(w.dir, "dst")
	if !mounted(t, dst, "ext2", image, "loop") {
		t.Skip("only root can mount an ext2: package transfer tests a disk that cuts times")
	}
	w.write("src/a", "1")
	require.NoError(t, os.Chtimes(filepath.Join(w.dir, "src/a"), at2040, at2040))
	ticket, stop := w.sends("src")
	defer stop()
	config := w.mine("config")
	code, text := w.run(config, "get", ticket, dst)
	require.Zero(t, code, text)
	code, text = w.run(config, "get", ticket, dst)
	require.Zero(t, code, text)
	require.Contains(t, text, "there ")
}

var at2040 = time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)

// untilReady returns the ticket that a sender prints before it is ready.
func untilReady(t *testing.T, out io.Reader) (ticket string) {
	t.Helper()
	for s := bufio.NewScanner(out); s.Scan(); {
		if text, found := strings.CutPrefix(s.Text(), "ticket "); found {
			ticket = strings.TrimSpace(text)
		}
		if s.Text() == "ready" {
			return ticket
		}
	}
	t.Fatal("the sender has ended")
	return ""
}
