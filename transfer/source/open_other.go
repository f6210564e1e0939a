//go:build unix && !linux

package source

const openLarge = 0
