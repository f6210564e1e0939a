package main

import "os/exec"

// There are no process groups here: only the command itself ends with its call.

func ownGroup(*exec.Cmd) {}

func terminateGroup(int) bool { return false }

func killGroup(int) {}

func groupExists(int) bool { return false }
