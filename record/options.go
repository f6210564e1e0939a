package record

import (
	"cmp"
	"fmt"
	"time"

	"github.com/peerlane/peerlane/internal/defaults"
)

// Options are the options of Open, OpenConn, Handle and AcceptConn. Nil is equivalent to the zero value.
type Options struct {
	// Window limits the written, unapplied records of each direction: those that this side writes, and those that it lets the peer write.
	// The lower limit of both sides counts. If zero, 65536. At most 2^24.
	Window int
	// WindowBytes limits their bytes in the same way. This side's memory for a direction stays within three times WindowBytes, plus 192
	// KiB. If zero, 4 MiB. At most 2^30.
	WindowBytes int
	// MaxRecord limits one record that this side accepts, in bytes. If zero, 1 MiB, or what WindowBytes has room for.
	MaxRecord int
	// BatchBytes limits the bytes of records sent together, except for one larger record. Each batch costs some 150 bytes of memory more.
	// If zero, 64 KiB.
	BatchBytes int
	// Linger is how long a record waits for others to be sent with it, while less than BatchBytes wait and no caller is at a Barrier. If
	// zero, none waits: records written while the previous batch is sent go together anyway.
	Linger time.Duration
	// AckDelay is how long an acknowledgement waits for more, while neither all received records nor a quarter of the window is applied. If
	// zero, 1 ms. If negative, none waits.
	AckDelay time.Duration
	// NoBatchAck sends acknowledgements only in frames of their own, as to a peer that supports nothing else.
	NoBatchAck bool
	// HandshakeTimeout bounds the wait for the other side's hello, together with the ctx of Open. If zero, 5 s. For the streams of Handle
	// it counts only the time in which the session is heard: a silent or lost connection does not use it up.
	HandshakeTimeout time.Duration
	// CloseTimeout is how long Close waits without progress for written records to reach the peer. If zero, 5 s.
	CloseTimeout time.Duration
	// Store, if not nil, keeps the stream's positions and unacknowledged records beyond this process. One stream at a time uses it. Another
	// stream takes it over once its peer has accepted it; a stream that is refused or fails to open leaves the holder alone.
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
	out.HandshakeTimeout = cmp.Or(out.HandshakeTimeout, defaults.Handshake)
	out.CloseTimeout = cmp.Or(out.CloseTimeout, defaults.Close)
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

// hello returns this side's hello at position p.
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
