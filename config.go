package peerlane

import (
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/internal/frame"
)

// sessionSuffix is appended to a tag to make the protocol ID of its sessions; the plain tag is that of pointsub v0.0.2's
// calls (spec 2).
const sessionSuffix = "/peerlane/1"

// agent is what sessions tell the other side they are.
const agent = "peerlane/0.1"

const (
	maxBlockSize = frame.MaxTotal
	maxInt       = math.MaxInt
)

// sessionTag returns the protocol ID of a tag's sessions.
func sessionTag(tag protocol.ID) protocol.ID { return tag + sessionSuffix }

type durationField struct {
	name string
	v    time.Duration
}

type sizeField struct {
	name   string
	v, max int
}

// validateFields returns an error that names the first field out of range. Zero is always in range.
func validateFields(config string, durations []durationField, sizes []sizeField) error {
	for _, d := range durations {
		if d.v < 0 {
			return invalidf("%s.%s: %v is negative", config, d.name, d.v)
		}
	}
	for _, z := range sizes {
		if z.v < 0 || z.v > z.max {
			return invalidf("%s.%s: %d is not within 0 to %d", config, z.name, z.v, z.max)
		}
	}
	return nil
}

// Bounds of a ReplayWindow.
const (
	minReplayWindow = 4 << 10
	maxReplayWindow = 64 << 20
)

// validateReplayWindow returns an error that names the field when n is out of range. Zero is in range.
func validateReplayWindow(field string, n int) error {
	if n != 0 && (n < minReplayWindow || n > maxReplayWindow) {
		return invalidf("%s: %d is not within %d to %d", field, n, minReplayWindow, maxReplayWindow)
	}
	return nil
}
