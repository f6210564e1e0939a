package psk

import "fmt"

// domainSalt is the Argon2id salt when Params.Salt is empty (spec 2.1). It is fixed so that a secret is all two sides
// have to agree on; a Salt of one's own keeps one secret's keys apart between applications.
const domainSalt = "peerlane psk 1.0"

// The defaults are the second recommended option of RFC 9106, section 4 (spec 2.1). The maxima keep a typing error from
// taking the machine's memory or never ending.
const (
	defaultTime      = 3
	defaultMemoryKiB = 64 << 10
	defaultThreads   = 4

	minSalt      = 8 // RFC 9106 section 3.1
	maxSalt      = 1 << 10
	maxTime      = 1 << 10
	maxMemoryKiB = 4 << 20
)

// Params is the cost of [Derive]. Both sides must use the same. The zero value and nil are the second recommended option
// of RFC 9106 with the salt "peerlane psk 1.0": 3 passes over 64 MiB in 4 lanes.
type Params struct {
	// Salt keeps keys of the same secret apart, 8 to 1024 bytes. If empty, "peerlane psk 1.0".
	Salt []byte

	// Time is the number of passes over the memory, at most 1024. If zero, 3.
	Time uint32

	// MemoryKiB is the memory in KiB, at least 8 per thread and at most 4 GiB. If zero, 65536 (64 MiB).
	MemoryKiB uint32

	// Threads is the number of lanes. It changes the key, not only the speed. If zero, 4.
	Threads uint8
}

// withDefaults returns a copy of p, which may be nil, with every zero field filled in.
func (p *Params) withDefaults() Params {
	var out Params
	if p != nil {
		out = *p
	}
	if len(out.Salt) == 0 {
		out.Salt = []byte(domainSalt)
	}
	if out.Time == 0 {
		out.Time = defaultTime
	}
	if out.MemoryKiB == 0 {
		out.MemoryKiB = defaultMemoryKiB
	}
	if out.Threads == 0 {
		out.Threads = defaultThreads
	}
	return out
}

// validate returns an ErrInvalid that names the first field out of range. It runs after withDefaults.
func (p *Params) validate() error {
	if n := len(p.Salt); n < minSalt || n > maxSalt {
		return fmt.Errorf("%w: Params.Salt has %d bytes, want %d to %d", ErrInvalid, n, minSalt, maxSalt)
	}
	if p.Time > maxTime {
		return fmt.Errorf("%w: Params.Time is %d, want at most %d", ErrInvalid, p.Time, maxTime)
	}
	if least := 8 * uint32(p.Threads); p.MemoryKiB < least || p.MemoryKiB > maxMemoryKiB {
		return fmt.Errorf("%w: Params.MemoryKiB is %d, want %d to %d for %d Threads",
			ErrInvalid, p.MemoryKiB, least, maxMemoryKiB, p.Threads)
	}
	return nil
}
