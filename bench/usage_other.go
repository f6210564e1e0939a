//go:build !linux

package main

import "time"

// cpuTimes returns nothing: it is not looked at on this system.
func cpuTimes() (self, children time.Duration) { return 0, 0 }

// freeBytes does not know.
func freeBytes(string) (int64, bool) { return 0, false }

// residentBytes does not know.
func residentBytes() (int64, bool) { return 0, false }
