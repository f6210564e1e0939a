package record_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

// Row: N21
// Claim: record.AcceptInfo.Name, record.AcceptInfo.Session, record.ErrNotTaken
func TestAHookRefusesAStream(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for name, c := range map[string]struct {
		hook error
		want record.Error
	}{
		"with a code": {&record.Error{Code: 4711, Text: "full moon"}, record.Error{Op: "open", Name: "log", Remote: true, Code: 4711, Text: "full moon"}},
		"with text":   {errors.New("not today"), record.Error{Op: "open", Name: "log", Remote: true, Code: record.CodeNotAccepted, Text: "not today"}},
		"with a code that is not its own": {&record.Error{Op: "hook", Code: record.CodeHistory, Text: "t"},
			record.Error{Op: "open", Name: "log", Remote: true, Code: record.CodeNotAccepted, Text: `hook: "t"`}},
		"with a long text": {&record.Error{Code: 300, Text: long}, record.Error{Op: "open", Name: "log", Remote: true, Code: 300, Text: long[:1024]}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHighway(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{})
				record.Handle(h.ToBob, "log", func(i record.AcceptInfo) (*record.Options, error) {
					require.Equal(t, record.AcceptInfo{Name: "log", Session: h.Bob}, i)
					return nil, c.hook
				}, func(*record.Stream) { panic("is not to be called") })
				_, err := record.Open(t.Context(), h.Alice, "log", nil)
				var e *record.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, c.want, *e)
				require.Equal(t, c.want.Code == record.CodeNotAccepted, errors.Is(err, record.ErrNotTaken))
			})
		})
	}
}

// A hook whose Options are wrong is this side's mistake, and the peer is told that it is not taken.
func TestOptionsOfAHookThatAreWrongRefuseTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHighway(t, peerlanetest.SessionsOptions{}, session.Config{})
		record.Handle(h.ToBob, "log", func(record.AcceptInfo) (*record.Options, error) { return &record.Options{Window: -1}, nil }, nil)
		_, err := record.Open(t.Context(), h.Alice, "log", nil)
		require.ErrorIs(t, err, record.ErrNotTaken)
		require.ErrorContains(t, err, "Window")
	})
}

// Row: N21
func TestAHookThatIsSwappedHoldsForTheNextStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHighway(t, peerlanetest.SessionsOptions{}, session.Config{})
		from, _ := h.connect(t, false, nil, nil)
		record.Handle(h.ToBob, "log", func(record.AcceptInfo) (*record.Options, error) { return nil, errors.New("no more") }, nil)
		_, err := record.Open(t.Context(), h.Alice, "log", nil)
		require.ErrorIs(t, err, record.ErrNotTaken)
		require.NoError(t, from.Err())
	})
}

// Row: N21
func TestAHandlerThatPanicsIsAnInternalErrorToThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHighway(t, peerlanetest.SessionsOptions{}, session.Config{})
		var at *record.Stream
		record.Handle(h.ToBob, "log", nil, func(s *record.Stream) {
			at = s
			_, _ = s.ReadRecord(t.Context())
			panic("secret")
		})
		s, err := record.Open(t.Context(), h.Alice, "log", nil)
		require.NoError(t, err)
		_, err = s.WriteRecord(t.Context(), []byte("x"))
		require.NoError(t, err)
		err = s.Barrier(t.Context())
		var e *record.Error
		require.ErrorAs(t, err, &e)
		require.True(t, e.Remote)
		require.Equal(t, record.CodeInternal, e.Code)
		require.NotContains(t, e.Error(), "secret")
		<-s.Done()
		<-at.Done()
		require.NoError(t, h.Alice.Context().Err(), "the session lives")
	})
}

// Row: N24
func TestAStreamIsClosedInOrderWhenItsHandlerReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHighway(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{})
		record.Handle(h.ToBob, "log", nil, func(s *record.Stream) {
			r, err := s.ReadRecord(t.Context())
			require.NoError(t, err)
			require.NoError(t, s.AckRecord(r.Seq))
			_, err = s.WriteRecord(t.Context(), []byte("good bye"))
			require.NoError(t, err)
		})
		s, err := record.Open(t.Context(), h.Alice, "log", nil)
		require.NoError(t, err)
		_, err = s.WriteRecord(t.Context(), []byte("x"))
		require.NoError(t, err)
		require.NoError(t, s.Barrier(t.Context()))
		require.Equal(t, "good bye", string(expectRecord(t, s, 1).Payload))
		_, err = s.ReadRecord(t.Context())
		require.Equal(t, io.EOF, err)
		require.NoError(t, s.AckRecord(1))
		require.NoError(t, s.Err())
		require.NoError(t, s.Close())
		require.ErrorIs(t, s.Err(), record.ErrClosed)
	})
}

// Row: N24
func TestAHandlerThatEndsItsGoroutineIsAnInternalErrorToThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHighway(t, peerlanetest.SessionsOptions{}, session.Config{})
		record.Handle(h.ToBob, "log", nil, func(*record.Stream) { runtime.Goexit() })
		s, err := record.Open(t.Context(), h.Alice, "log", nil)
		require.NoError(t, err)
		_, err = s.ReadRecord(t.Context())
		var e *record.Error
		require.ErrorAs(t, err, &e)
		require.True(t, e.Remote)
		require.Equal(t, record.CodeInternal, e.Code)
		<-s.Done()
	})
}

// Row: N24
func TestAnOpenThatFailsLeavesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		open func(t *testing.T, h *highway, o *record.Options) error
		want error
	}{
		"an unknown name": {func(t *testing.T, h *highway, o *record.Options) error {
			_, err := record.Open(t.Context(), h.Alice, "nobody", o)
			return err
		}, session.ErrNotFound},
		"cancelled before": {func(t *testing.T, h *highway, o *record.Options) error {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := record.Open(ctx, h.Alice, "silent", o)
			return err
		}, context.Canceled},
		"cancelled at any time": {func(t *testing.T, h *highway, o *record.Options) error {
			for d := range 12 {
				_, err := record.Open(soon(t, time.Duration(d)*time.Millisecond), h.Alice, "silent", o)
				if !errors.Is(err, context.DeadlineExceeded) {
					return err
				}
			}
			return context.DeadlineExceeded
		}, context.DeadlineExceeded},
		"no answer": {func(t *testing.T, h *highway, o *record.Options) error {
			_, err := record.Open(t.Context(), h.Alice, "silent", o)
			return err
		}, context.DeadlineExceeded},
		"invalid": {func(t *testing.T, h *highway, o *record.Options) error {
			_, err := record.Open(t.Context(), h.Alice, "silent", &record.Options{Window: -1, Registry: o.Registry})
			return err
		}, record.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHighway(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{})
				h.ToBob.SetStream("silent", func(st *session.Stream) { _, _ = io.Copy(io.Discard, st) })
				kept := newShelf()
				o := &record.Options{Store: kept, Registry: new(record.Registry)}
				err := c.open(t, h, o)
				require.ErrorIs(t, err, c.want)
				quiet(time.Minute)
				require.NotContains(t, stacks(), "peerlane/record.(*Stream)", "a goroutine is left")
				require.Empty(t, o.Registry.Snapshots())
				kept.mu.Lock()
				defer kept.mu.Unlock()
				require.False(t, kept.held, "the Store is free")
			})
		})
	}
}

// stacks returns those of all goroutines.
func stacks() string {
	b := make([]byte, 4<<20)
	return string(b[:runtime.Stack(b, true)])
}

// A stream that takes over a Store ends the one that had it.
//
// Row: N22, N24
// Claim: record.ErrSuperseded, record.Options.Store
func TestAStreamThatTakesOverEndsTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHighway(t, peerlanetest.SessionsOptions{}, session.Config{})
		mine, theirs := &record.Options{Store: newShelf(), Registry: new(record.Registry)}, &record.Options{Store: newShelf()}
		from, to := h.connect(t, false, mine, theirs)
		_, err := from.WriteRecord(t.Context(), []byte("x"))
		require.NoError(t, err)
		again, next := h.connect(t, false, mine, theirs)
		<-from.Done()
		<-to.Done()
		var e *record.Error // of whose Store was faster
		require.ErrorAs(t, from.Err(), &e)
		require.True(t, errors.Is(e, record.ErrSuperseded) || e.Remote && e.Code == record.CodeSuperseded, "%v", e)
		synctest.Wait()
		require.Len(t, mine.Registry.Snapshots(), 1)
		require.Equal(t, again.Snapshot().ID, mine.Registry.Snapshots()[0].ID)
		for stream, on := range map[*record.Stream]*session.Session{again: h.Alice, next: h.Bob} { // their sessions list them too
			require.Equal(t, []any{stream.Snapshot()}, on.ForDiagnostics().State().Lanes)
		}
		require.Equal(t, "x", string(expectRecord(t, next, 1).Payload))
		require.NoError(t, next.AckRecord(1))
		require.NoError(t, again.Barrier(t.Context()))
	})
}
