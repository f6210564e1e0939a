package record_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

// A function that applies records may end its goroutine, one record after the other or several at once: the writer learns it at once.
func TestApplyEndsWithAFunctionThatEndsItsGoroutine(t *testing.T) {
	for _, parallel := range []int{1, 2, 8} {
		for name, end := range map[string]func(){"Goexit": runtime.Goexit, "panic": func() { panic("boom") }} {
			t.Run(fmt.Sprint(name, parallel), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHighway(t, peerlanetest.SessionsOptions{}, session.Config{})
					record.Handle(h.ToBob, "log", nil, func(s *record.Stream) {
						_ = record.Apply(t.Context(), s, func(ctx context.Context, r record.Record) error {
							if r.Seq == 3 {
								end()
							}
							if r.Seq > 3 {
								<-ctx.Done()
							}
							return ctx.Err()
						}, &record.ApplyOptions{Parallel: parallel})
					})
					s, err := record.Open(t.Context(), h.Alice, "log", nil)
					require.NoError(t, err)
					payloads := make([][]byte, 20)
					_, err = s.WriteBatch(t.Context(), payloads)
					require.NoError(t, err)
					began := time.Now()
					err = s.Barrier(t.Context())
					var e *record.Error
					require.ErrorAs(t, err, &e)
					require.True(t, e.Remote)
					require.Equal(t, record.CodeInternal, e.Code)
					require.LessOrEqual(t, e.Applied, uint64(2))
					require.Zero(t, time.Since(began))
					<-s.Done()
				})
			})
		}
	}
}

// Apply ends its own goroutine when a function in another one has ended that: whoever called it is told in the same way as by a panic.
func TestGoexitInParallelIsThatOfApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwins(t, nil, nil, faultnet.LinkOptions{})
		_, err := w.both[0].WriteRecord(t.Context(), []byte("x"))
		require.NoError(t, err)
		returned := false
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = record.Apply(t.Context(), w.both[1], func(context.Context, record.Record) error {
				runtime.Goexit()
				return nil
			}, &record.ApplyOptions{Parallel: 4})
			returned = true
		}()
		<-done
		require.False(t, returned)
	})
}

// exitStore ends its goroutine in one of its methods, the nth time.
type exitStore struct {
	record.Store
	method string
	nth    int
}

func (s *exitStore) at(method string) {
	if method == s.method {
		if s.nth--; s.nth == 0 {
			runtime.Goexit()
		}
	}
}

func (s *exitStore) Begin(lost func()) (record.Place, error) {
	s.at("Begin")
	return s.Store.Begin(lost)
}

func (s *exitStore) Tail(seq uint64) iter.Seq2[record.Record, error] {
	s.at("Tail")
	return s.Store.Tail(seq)
}

func (s *exitStore) Append(first uint64, records iter.Seq[[]byte], acked uint64) error {
	s.at("Append")
	return s.Store.Append(first, records, acked)
}

func (s *exitStore) Applied(log record.LogID, seq uint64) error {
	s.at("Applied")
	return s.Store.Applied(log, seq)
}

func (s *exitStore) End(acked uint64) error {
	s.at("End")
	return s.Store.End(acked)
}

// A Store that ends its goroutine ends the stream, with an error on both sides, and nothing waits for it.
func TestAStoreThatEndsItsGoroutineEndsTheStream(t *testing.T) {
	for _, c := range []struct {
		method string
		nth    int
	}{{"Begin", 1}, {"Tail", 1}, {"Append", 1}, {"Append", 2}, {"Applied", 1}, {"Applied", 2}, {"End", 1}} {
		for side := range 2 {
			t.Run(fmt.Sprintf("%v at side %d", c, side), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					kept := newShelf()
					keepRecords(t, kept, 1) // so that there is a tail
					opts := [2]*record.Options{{}, {}}
					opts[side].Store = &exitStore{kept, c.method, c.nth}
					h := newHighway(t, peerlanetest.SessionsOptions{}, session.Config{})
					accepted := make(chan *record.Stream, 1)
					record.Handle(h.ToBob, "log", func(record.AcceptInfo) (*record.Options, error) { return opts[1], nil }, func(s *record.Stream) {
						accepted <- s
						<-s.Done()
					})
					opened := make(chan *record.Stream, 1)
					go func() {
						defer close(opened)
						if s, err := record.Open(t.Context(), h.Alice, "log", opts[0]); err == nil {
							opened <- s
						}
					}()
					s := <-opened
					if s == nil {
						return // refused, or its goroutine has ended
					}
					var failed []error
					use := func(from, to *record.Stream) {
						for range 3 {
							_, err := from.WriteRecord(soon(t, time.Second), []byte("x"))
							failed = append(failed, err)
							r, err := to.ReadRecord(soon(t, time.Second))
							failed = append(failed, err)
							if err == nil {
								failed = append(failed, to.AckRecord(r.Seq))
							}
						}
						failed = append(failed, from.Barrier(soon(t, time.Second)))
					}
					synctest.Wait()
					select {
					case a := <-accepted:
						use(s, a)
						use(a, s)
						failed = append(failed, a.Close())
					default:
					}
					failed = append(failed, s.Close())
					<-s.Done()
					if c.method != "End" || side == 0 { // the other's End comes when nobody asks any more
						require.Error(t, errors.Join(failed...))
					}
				})
			})
		}
	}
}

// Row: N21
func TestAHookThatEndsItsGoroutineRefusesTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHighway(t, peerlanetest.SessionsOptions{}, session.Config{MaxStreams: 2})
		record.Handle(h.ToBob, "log", func(record.AcceptInfo) (*record.Options, error) {
			runtime.Goexit()
			return nil, nil
		}, nil)
		for range 10 {
			_, err := record.Open(t.Context(), h.Alice, "log", nil)
			require.ErrorIs(t, err, session.ErrInternal)
		}
	})
}
