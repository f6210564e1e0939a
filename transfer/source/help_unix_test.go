//go:build unix

package source

import "testing"

func needsUnix(testing.TB) {}
