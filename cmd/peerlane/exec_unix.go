//go:build unix

package main

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownGroup makes a command the first of a process group, which is asked to end when the command's ctx does.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }
}

// terminateGroup asks a group to end, and reports whether there is anything in it.
func terminateGroup(group int) bool { return unix.Kill(-group, unix.SIGTERM) == nil }

// killGroup ends a group.
func killGroup(group int) { _ = unix.Kill(-group, unix.SIGKILL) } // groupExists tells what came of it

// groupExists reports whether a group has a process that may be signalled. It collects orphans that have ended, if this process is their
// parent now.
func groupExists(group int) bool {
	_, _ = unix.Wait4(-group, nil, unix.WNOHANG, nil) // without any, an error
	return unix.Kill(-group, 0) == nil
}
