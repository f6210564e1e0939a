package main

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the tests if a contender leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
