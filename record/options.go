package record

import (
	"cmp"
	"fmt"
	"time"
)

// Options are for Open, OpenConn, Handle and AcceptConn. Nil is as good as the zero value.
type Options struct {
	// Window caps the records of each direction that are written and not applied: what this side writes, and what it lets the
	// peer write; the lower of both sides counts. If zero, 65536. At most 2^24.
	Window int
	// WindowBytes caps their bytes in the same way; this side's memory for a direction stays within three times it, and 192 KiB.
	// If zero, 4 MiB. At most 2^30.
	WindowBytes int
	// MaxRecord caps one record that this side takes, in bytes. If zero, 1 MiB, or what WindowBytes has room for.
	MaxRecord int
	// BatchBytes is how many bytes of records leave together at most, except for one larger record. Each batch costs some 150
	// bytes of memory more. If zero, 64 KiB.
	BatchBytes int
	// Linger is how long a record waits for others to leave with it, while less than BatchBytes wait and nobody is at a
	// Barrier. If zero, none waits: what is written while the one before leaves goes together anyway.
	Linger time.Duration
	// AckDelay is how long an acknowledgement waits for more, while neither all that has come is applied nor a quarter of the
	// window. If zero, 1 ms. If negative, none waits.
	AckDelay time.Duration
	// NoBatchAck keeps acknowledgements in frames of their own, as with a peer that knows no other.
	NoBatchAck bool
	// HandshakeTimeout bounds the wait for the other side's hello, with the ctx of Open. If zero, 5 s. For the streams of Handle it
	// counts the time in which the session is heard: a connection that is silent or lost does not use it up.
	HandshakeTimeout time.Duration
	// CloseTimeout is how long Close waits without progress for what is written to reach the peer. If zero, 5 s.
	CloseTimeout time.Duration
	// Store, if not nil, keeps the stream's places, and the records that are not acknowledged, beyond this process. One stream
	// at a time uses it: another one takes it over once its peer has accepted it. A stream that is refused, or fails to open, leaves the
	// one before it alone.
	Store Store
	// Registry, if not nil, lists the stream while it is open.
	Registry *Registry
}

func (o *Options) withDefaults() Options {
	var out Options
	if o != nil {
		out = *o
	}
	out.Window = cmp.Or(out.Window, 1<<16)
	out.WindowBytes = cmp.Or(out.WindowBytes, 4<<20)
	out.MaxRecord = cmp.Or(out.MaxRecord, max(1, min(1<<20, out.WindowBytes-maxLengthSize)))
	out.BatchBytes = cmp.Or(out.BatchBytes, batchBytes)
	out.AckDelay = cmp.Or(out.AckDelay, time.Millisecond)
	out.HandshakeTimeout = cmp.Or(out.HandshakeTimeout, 5*time.Second)
	out.CloseTimeout = cmp.Or(out.CloseTimeout, 5*time.Second)
	return out
}

func (o *Options) validate() error {
	switch {
	case o.Window < leastWindow || o.Window > maxWindow:
		return fmt.Errorf("%w: Window is %d, want %d to %d", ErrInvalid, o.Window, leastWindow, maxWindow)
	case o.WindowBytes <= maxLengthSize || o.WindowBytes > maxBytes:
		return fmt.Errorf("%w: WindowBytes is %d, want %d to %d", ErrInvalid, o.WindowBytes, maxLengthSize+1, maxBytes)
	case o.MaxRecord < 1 || o.MaxRecord > o.WindowBytes-maxLengthSize:
		return fmt.Errorf("%w: MaxRecord is %d, want 1 to %d less than WindowBytes, %d",
			ErrInvalid, o.MaxRecord, maxLengthSize, o.WindowBytes)
	case o.BatchBytes < 1 || o.BatchBytes > maxBytes:
		return fmt.Errorf("%w: BatchBytes is %d, want 1 to %d", ErrInvalid, o.BatchBytes, maxBytes)
	case o.Linger < 0:
		return fmt.Errorf("%w: Linger is %v, want 0 or more", ErrInvalid, o.Linger)
	case o.HandshakeTimeout < 0:
		return fmt.Errorf("%w: HandshakeTimeout is %v, want more than 0", ErrInvalid, o.HandshakeTimeout)
	case o.CloseTimeout < 0:
		return fmt.Errorf("%w: CloseTimeout is %v, want more than 0", ErrInvalid, o.CloseTimeout)
	}
	return nil
}

// hello returns what this side says of itself, standing at p.
func (o *Options) hello(k helloKind, p Place) hello {
	h := hello{
		kind: k, records: uint32(o.Window), bytes: uint32(o.WindowBytes), largest: uint32(o.MaxRecord),
		log: p.Log, first: p.Acked + 1, next: p.Next, known: p.Peer, applied: p.Applied,
	}
	h.caps = capGiven
	if !o.NoBatchAck {
		h.caps |= capBatchAck
	}
	return h
}
