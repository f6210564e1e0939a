//go:build !race

package diagnostics

const raceEnabled = false
