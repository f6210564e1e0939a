package peerlane

import (
	"time"

	"github.com/peerlane/peerlane/internal/defaults"
	"github.com/peerlane/peerlane/resume"
	"github.com/peerlane/peerlane/session"
)

// KeeperConfig is the configuration of Client.Keep. The zero value is useful.
type KeeperConfig struct {
	// Sessions is the number of sessions to keep open. If zero, 1. At most 64.
	Sessions int
	// Backoff is the wait after a failed attempt: Min after the first, twice as long after each further one in a row, up to Max. Each wait
	// is shortened at random by up to a half. If Min is zero, 50 ms. If Max is zero, 5 s, or Min if that is longer.
	Backoff resume.Backoff
	// MaxAttempts is how many attempts in a row may fail before the keeper gives up. If zero, there is no limit.
	MaxAttempts int
	// OnEvent, if not nil, is called with each event, one at a time. It must not block, so it must not call Get or Close of the keeper or
	// Close of its client.
	OnEvent func(KeeperEvent)
}

const maxKeptSessions = 64

// validate returns an error that matches ErrInvalid and names the first field that is out of range, or nil.
func (c *KeeperConfig) validate() error {
	err := validateFields("KeeperConfig", []durationField{{"Backoff.Min", c.Backoff.Min}, {"Backoff.Max", c.Backoff.Max}},
		[]sizeField{{"Sessions", c.Sessions, maxKeptSessions}, {"MaxAttempts", c.MaxAttempts, maxInt}})
	if err != nil {
		return err
	}
	if b := c.withDefaults().Backoff; b.Min > b.Max {
		return invalidf("KeeperConfig.Backoff.Max: %v is less than Min, %v", b.Max, b.Min)
	}
	return nil
}

func (c KeeperConfig) withDefaults() KeeperConfig {
	defaults.Set(&c.Sessions, 1)
	defaults.Set(&c.Backoff.Min, defaults.MinBackoff)
	defaults.Set(&c.Backoff.Max, max(defaults.MaxBackoff, c.Backoff.Min))
	return c
}

// A KeeperEventKind is the kind of a KeeperEvent.
type KeeperEventKind string

// The kinds of events.
const (
	KeeperOpened KeeperEventKind = "opened"  // a session is open
	KeeperEnded  KeeperEventKind = "ended"   // a session has ended, and will be replaced
	KeeperFailed KeeperEventKind = "failed"  // an attempt to open a session has failed
	KeeperGaveUp KeeperEventKind = "gave up" // the keeper opens no more sessions: the last event
)

// A KeeperEvent reports one step of a Keeper. Close causes no event.
type KeeperEvent struct {
	Kind    KeeperEventKind
	Session *session.Session // KeeperOpened and KeeperEnded
	Err     error            // why the session ended, why the attempt failed, or what Keeper.Err returns
	Attempt int              // number of the attempt in a row, from 1; KeeperOpened: how many attempts it took
	Wait    time.Duration    // KeeperEnded and KeeperFailed: until the next attempt; a connection from the peer ends it earlier
}
