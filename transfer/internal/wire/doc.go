// Package wire is the frames of the transfer protocol, as transfer/SPEC.md has them: pure, no I/O but reading one frame.
package wire
