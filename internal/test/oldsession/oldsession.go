// Package oldsession is a frozen peer of sessions. It speaks docs/PROTOCOL.md, resume/SPEC.md and bulk/SPEC.md as they were when
// the capabilities were zstd, batch-ack, resume and resumable streams (bits 1, 2, 4 and 8), and offers no others. It is written
// from those texts and shares no code with packages frame, session, resume and bulk, so that tests of mixed versions do not
// test those packages against themselves. Only the seal is package psk's.
//
// It takes both roles and carries every lane: calls, one-way messages, shared, dedicated and resumable streams, and bulk lanes
// over several strands. It is strict: bytes that break a MUST of those texts end the session, or the lane. Where the texts leave
// a choice it takes the simplest one. It works on net.Conns and in virtual time.
//
// The end of a conversation is frozen too: Close sends what it has accepted, then GOAWAY, and drops the messages and the bytes
// of dedicated streams that the application has not taken yet.
//
// Do not mend it: it stands for what is out there.
package oldsession

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/peerlane/peerlane/psk"
)

// The codes of PROTOCOL.md, 9.1.
const (
	CodeOK uint32 = iota
	CodeInternal
	CodeApplication
	CodeNotFound
	CodeUnavailable
	CodeTooLarge
	CodeProtocol
	CodeVersion
	CodeUnsupported
	CodeCancelled
	CodeTimeout
	CodePSKRequired
	CodePSKMismatch
	CodePSKReplayed
	CodePSKUnexpected
	CodeNotAllowed
	CodeGoingAway
	CodeNoReply
	CodeClosed
	CodeReadClosed
	CodeFlowControl
	CodePSKTampered
	CodeReplyTooLarge
)

// LastWord is added to the code that a resumable stream ends with, on its carrier (PROTOCOL.md, 9.2).
const LastWord = 0x10000

// Why a session or a stream has ended.
var (
	ErrClosed = errors.New("oldsession: closed")
	ErrLost   = errors.New("oldsession: lost")
)

// A Failure is a code and its text: of a REFUSE, an ERROR, a RESET, a STOP or a GOAWAY, or of what this side has found.
type Failure struct {
	Code    uint32
	Text    string
	Remote  bool // the other side says so
	Refused bool // in a REFUSE
	NotSent bool // nothing of the work has left
}

// Error implements error.
func (f *Failure) Error() string {
	return fmt.Sprintf("oldsession: code %d (remote: %v, not sent: %v): %q", f.Code, f.Remote, f.NotSent, f.Text)
}

// breach returns what the other side has done against the protocol.
func breach(format string, args ...any) error {
	return &Failure{Code: CodeProtocol, Text: fmt.Sprintf(format, args...)}
}

// codeOf returns the code of err, or CodeOK.
func codeOf(err error) uint32 {
	var f *Failure
	if errors.As(err, &f) {
		return f.Code
	}
	return CodeOK
}

// A ResetError is what Read and Write of a carrier return when the other side has reset it. Carriers that know resets have a
// method Reset(code uint32) error.
type ResetError struct{ Code uint32 }

// Error implements error.
func (r *ResetError) Error() string {
	return fmt.Sprintf("oldsession: carrier reset with code %d", r.Code)
}

// Limits are what a side is ready to receive (PROTOCOL.md, 3.4).
type Limits struct {
	MaxMessage, MaxInFlight, MessageWindow, MaxStreams, StreamWindow uint32
}

var defaultLimits = Limits{32 << 20, 4096, 1 << 20, 128, 512 << 10}

// An Opener opens a further conn to the other side.
type Opener func(ctx context.Context) (net.Conn, error)

// A Config is one side's settings.
type Config struct {
	Local, Tag string        // what the seal is bound to
	Keys       *psk.Keyring  // nil: no seal
	Limits     *Limits       // nil: the defaults of the text
	Window     int           // bytes kept for another carrier. If zero, 1 MiB
	Patience   time.Duration // without a carrier. If zero, 60 s. If negative, there is no resumption
	Heartbeat  time.Duration // silence until a PING; twice that is a loss. If zero, 5 s
	NoZstd     bool

	OnCall    func(ctx context.Context, link string, body []byte) ([]byte, error) // nil: there is no such link
	OnMessage func(link string, body []byte) error                                // likewise
	OnStream  func(*Stream)                                                       // likewise; the stream is closed when it returns
	OnFailure func(link string, err error)                                        // of one-way messages; may be nil, and must not use the session
}

const (
	handshakeTimeout = 5 * time.Second
	closeTimeout     = time.Second
	handoverTimeout  = 5 * time.Second
	reopenTimeout    = 15 * time.Second
)

func (c Config) withDefaults() Config {
	if c.Limits == nil {
		c.Limits = &defaultLimits
	}
	if c.Window == 0 {
		c.Window = 1 << 20
	}
	if c.Patience == 0 {
		c.Patience = time.Minute
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 5 * time.Second
	}
	return c
}

// caps returns the capabilities of today.
func (c *Config) caps() uint64 {
	caps := uint64(capBatchAck)
	if !c.NoZstd {
		caps |= capZstd
	}
	if c.Patience > 0 {
		caps |= capResume | capResumeStreams
	}
	return caps
}

// watch calls probe when nothing has been heard for every, and lost after twice that, until over is closed. heard returns a
// count, and false while there is no carrier.
func watch(every time.Duration, over <-chan struct{}, heard func() (int, bool), probe, lost func()) {
	ticker := time.NewTicker(every / 4)
	defer ticker.Stop()
	last, since := -1, time.Now()
	for {
		select {
		case <-over:
			return
		case <-ticker.C:
		}
		n, live := heard()
		switch silent := time.Since(since); {
		case n != last || !live:
			last, since = n, time.Now()
		case silent >= 2*every:
			lost()
			since = time.Now()
		case silent >= every:
			probe()
		}
	}
}
