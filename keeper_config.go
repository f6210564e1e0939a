package peerlane

import (
	"fmt"
	"time"

	"github.com/peerlane/peerlane/resume"
	"github.com/peerlane/peerlane/session"
)

// KeeperConfig is for Client.Keep. The zero value is useful.
type KeeperConfig struct {
	// Sessions is how many are kept open. If zero, 1. At most 64.
	Sessions int
	// Backoff is the wait after an attempt that failed: Min after the first, twice as long after each further one in a
	// row, up to Max; each wait is shortened by up to a half at random. If Min is zero, 50 ms; if Max is, 5 s, or Min if
	// that is longer.
	Backoff resume.Backoff
	// MaxAttempts is how many attempts in a row may fail before the keeper gives up. If zero, it never does for that
	// reason.
	MaxAttempts int
	// OnEvent, if not nil, is called with each event, one after the other. It must not block, so it must neither Get from
	// nor Close the keeper or its client.
	OnEvent func(KeeperEvent)
}

const maxKeptSessions = 64

// Validate returns an error that matches ErrInvalid and names the first field that is out of range, or nil.
func (c *KeeperConfig) Validate() error {
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
	setDefault(&c.Sessions, 1)
	setDefault(&c.Backoff.Min, 50*time.Millisecond)
	setDefault(&c.Backoff.Max, max(5*time.Second, c.Backoff.Min))
	return c
}

// A KeeperEventKind is what happened to a Keeper.
type KeeperEventKind uint8

// The kinds of events.
const (
	KeeperOpened KeeperEventKind = 1 // a session is open
	KeeperEnded  KeeperEventKind = 2 // a session has ended, and will be replaced
	KeeperFailed KeeperEventKind = 3 // an attempt to open a session has failed
	KeeperGaveUp KeeperEventKind = 4 // the keeper opens no more sessions: the last event
)

var keeperEventNames = [...]string{KeeperOpened: "opened", KeeperEnded: "ended", KeeperFailed: "failed",
	KeeperGaveUp: "gave up"}

// String returns "opened", "ended", "failed" or "gave up".
func (k KeeperEventKind) String() string {
	if int(k) < len(keeperEventNames) && k > 0 {
		return keeperEventNames[k]
	}
	return fmt.Sprintf("keeper event %d", uint8(k))
}

// A KeeperEvent tells of one step of a Keeper. What Close does is no event.
type KeeperEvent struct {
	Kind    KeeperEventKind
	Session *session.Session // KeeperOpened and KeeperEnded
	Err     error            // why the session ended, why the attempt failed, or what Keeper.Err returns
	Attempt int              // which in a row: KeeperOpened after so many, KeeperFailed and KeeperGaveUp at so many; from 1
	Wait    time.Duration    // KeeperEnded and KeeperFailed: until the next attempt; the peer's coming ends it earlier
}
