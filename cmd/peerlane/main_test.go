package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/internal/test/procs"
)

// leakChecked runs the tests, and fails when goroutines are left.
type leakChecked struct{ m *testing.M }

// Run runs the tests, away from the files of who runs them.
func (l leakChecked) Run() int {
	procs.Parallel(8)
	dir, err := os.MkdirTemp("", "peerlane-config-")
	if err == nil {
		err = os.Setenv("XDG_CONFIG_HOME", dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := l.m.Run()
	_ = os.RemoveAll(dir)
	if code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// scripted is main in the processes of the scripts and stories. Keys cost what they do by default only under PSK_COST=default.
func scripted() {
	if os.Getenv("PSK_COST") != "default" {
		pskOptions = unstretched
	}
	main()
}

func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"peerlane": scripted})
}
