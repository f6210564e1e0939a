//go:build unix && !linux && !darwin && !freebsd && !dragonfly

package staging

// Room does not know: each of these systems has a call of its own.
func (d diskFS) Room() (bytes, inodes int64, err error) { return -1, -1, nil }
