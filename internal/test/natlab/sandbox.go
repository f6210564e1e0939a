//go:build linux

package natlab

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

var required = flag.Bool("natlab", false, "fail where the machine allows no lab, instead of skipping")

// insideEnv says to a test program that it is in the sandbox, or why there is none.
const insideEnv = "PEERLANE_NATLAB"

// Main runs the tests of a package in new user, mount, process and network namespaces, where creating further ones needs no root. It
// returns the exit code for TestMain, which is 1 if a goroutine has leaked.
func Main(m *testing.M) int {
	if os.Getenv(insideEnv) != "" {
		return run(m)
	}
	code, err := again()
	if err == nil {
		return code
	}
	why := fmt.Sprintf("no namespaces: %v", err)
	fmt.Fprintf(os.Stderr, "natlab: THE NAT LAB DOES NOT RUN HERE: %s\n", why)
	if err := os.Setenv(insideEnv, why); err != nil {
		panic(err)
	}
	return run(m)
}

func run(m *testing.M) int {
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// inside is the value of insideEnv in a sandbox.
const inside = "inside"

// again runs this program again in new namespaces, and returns how it exited.
func again() (int, error) {
	runtime.LockOSThread() // the child dies with this thread
	defer runtime.UnlockOSThread()
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"="+inside)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// need skips a test where there is no lab, or fails it when the flag says so.
func need(t testing.TB) {
	t.Helper()
	why := os.Getenv(insideEnv)
	if why == inside {
		err := works()
		if err == nil {
			return
		}
		why = err.Error()
	}
	if *required {
		t.Fatalf("the NAT lab does not run here: %s", why)
	}
	t.Skipf("the NAT lab does not run here: %s", why)
}

// works tries what every host needs, once.
var works = sync.OnceValue(func() error {
	space, err := newNamespace()
	if err != nil {
		return err
	}
	defer func() { _ = space.Close() }()
	return space.do(func() error {
		tun, err := openTUN("eth0")
		if err != nil {
			return err
		}
		return tun.Close()
	})
})
