// Package defaults has the defaults that options of several packages share, so that a session, its lanes and the client above it agree.
package defaults

import "time"

// The defaults.
const (
	Handshake    = 5 * time.Second  // HandshakeTimeout, ConnectTimeout: without progress
	Read         = 30 * time.Second // ReadTimeout
	Write        = 30 * time.Second // WriteTimeout
	Close        = 5 * time.Second  // CloseTimeout: without progress
	Heartbeat    = 5 * time.Second
	ResumeWindow = time.Minute
	ReplayWindow = 1 << 20  // bytes
	MaxMessage   = 32 << 20 // bytes

	MinBackoff = 50 * time.Millisecond
	MaxBackoff = 5 * time.Second
)

// Set sets *v to def if it is zero.
func Set[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
