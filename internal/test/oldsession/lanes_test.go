package oldsession_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/oldsession"
	"github.com/peerlane/peerlane/session"
)

var delayed = faultnet.LinkOptions{Delay: time.Millisecond}

// small is limits that are reached all the time.
var small = session.Config{MaxMessage: 2 << 20, MaxInFlight: 3, MessageWindow: 4 << 10, MaxStreams: 8, StreamWindow: 4 << 10, ReplayWindow: 8 << 10}

func TestCallsOfOldAndNewAreAnswered(t *testing.T) {
	for name, tm := range map[string]terms{"default": {link: delayed}, "small": {link: delayed, limits: small}, "mortal": {link: delayed, mortal: true}} {
		t.Run(name, func(t *testing.T) {
			each(t, tm, func(t *testing.T, w *world) {
				var wg sync.WaitGroup
				for name, way := range w.ways() {
					for i, n := range []int{0, 1, 511, 5000, 16 << 10, 66000, 150_000} {
						wg.Go(func() {
							body := pattern(uint64(i), n)
							got, err := way.from.call(t.Context(), "echo", body)
							if err != nil || !bytes.Equal(body, got) {
								t.Errorf("%s: %d bytes: %d came back: %v", name, n, len(got), err)
							}
						})
					}
				}
				wg.Wait()
			})
		})
	}
}

func TestFailedCallsOfOldAndNewSayWhy(t *testing.T) {
	each(t, terms{link: delayed, limits: small}, func(t *testing.T, w *world) {
		for name, way := range w.ways() {
			_, err := way.from.call(t.Context(), "such", nil)
			require.Equal(t, oldsession.CodeApplication, codeOf(err), name)
			require.ErrorContains(t, err, "no such", name)
			_, err = way.from.call(t.Context(), "panic", nil)
			require.Equal(t, oldsession.CodeInternal, codeOf(err), name)
			_, err = way.from.call(t.Context(), "echo", make([]byte, 2<<20+1))
			require.Equal(t, oldsession.CodeTooLarge, codeOf(err), name)
			for range 10 { // more than may be in flight: each place comes back
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_, err = way.from.call(ctx, "wait", pattern(1, 9000))
				require.Error(t, err, name)
				cancel()
			}
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			_, err = way.from.call(ctx, "wait", nil)
			require.ErrorIs(t, err, context.Canceled, name)
			got, err := way.from.call(t.Context(), "echo", []byte("on"))
			require.NoError(t, err, name)
			require.Equal(t, "on", string(got), name)
		}
	})
}

func TestMessagesOfOldAndNewAreHandledInOrder(t *testing.T) {
	for name, limits := range map[string]session.Config{"default": {}, "small": small} {
		t.Run(name, func(t *testing.T) {
			each(t, terms{link: delayed, limits: limits}, func(t *testing.T, w *world) {
				for name, way := range w.ways() {
					var want [][]byte
					for i := range 100 {
						b := pattern(uint64(i), i*i/4)
						want = append(want, b)
						require.NoError(t, way.from.send(t.Context(), "", b), name)
						if i == 50 {
							require.NoError(t, way.from.send(t.Context(), "", []byte("bad")), name)
						}
					}
					_ = way.from.flush(t.Context()) // a new side tells of what has failed here too
					synctest.Wait()
					got, _ := way.to.taken()
					require.True(t, slices.EqualFunc(want, got, bytes.Equal), name)
					_, failures := way.back.taken()
					require.Len(t, failures, 1, name)
					require.Equal(t, oldsession.CodeApplication, codeOf(failures[0]), name)
				}
			})
		})
	}
}

// kinds are those of streams. Only the side that has dialed opens others than shared ones.
var kinds = []string{"shared", "dedicated", "resumable"}

func TestStreamsOfOldAndNewCarryEveryByte(t *testing.T) {
	for name, limits := range map[string]session.Config{"default": {}, "small": small} {
		t.Run(name, func(t *testing.T) {
			each(t, terms{link: delayed, limits: limits}, func(t *testing.T, w *world) {
				var wg sync.WaitGroup
				for _, kind := range kinds {
					for name, way := range w.ways() {
						if kind != "shared" && name == "from bob" {
							continue
						}
						for i, n := range []int{0, 1, 100_000} {
							wg.Go(func() {
								st, err := way.from.open(t.Context(), kind, "echo")
								if err != nil {
									t.Errorf("%s %s: %v", kind, name, err)
									return
								}
								echoes(t, st, pattern(uint64(i), n))
							})
						}
					}
				}
				wg.Wait()
				ended(t, w)
			})
		})
	}
}

// ended fails unless both sides have nothing in flight: then a drain ends the session at once.
func ended(t *testing.T, w *world) {
	t.Helper()
	began := time.Now()
	w.alice.drain()
	<-w.alice.done()
	<-w.bob.done()
	require.Less(t, time.Since(began), 10*time.Second)
}

func TestStreamsOfAMortalSessionCarryEveryByte(t *testing.T) {
	each(t, terms{link: delayed, mortal: true}, func(t *testing.T, w *world) {
		for _, kind := range kinds[:2] {
			st, err := w.alice.open(t.Context(), kind, "echo")
			require.NoError(t, err, kind)
			echoes(t, st, pattern(1, 550_000))
		}
		_, err := w.alice.open(t.Context(), "resumable", "echo")
		require.Equal(t, oldsession.CodeUnsupported, codeOf(err))
	})
}

// A reset tells its code at once, and a reader that has left ends the writer alone.
func TestEndsOfStreamsOfOldAndNewAreTold(t *testing.T) {
	each(t, terms{link: delayed}, func(t *testing.T, w *world) {
		results := make(chan error, 1)
		for name, way := range w.ways() {
			for _, kind := range kinds {
				if kind != "shared" && name == "from bob" {
					continue
				}
				way.to.stream = func(st lane, _ string) {
					_, _ = st.Write([]byte("x"))
					_, err := io.Copy(io.Discard, st)
					results <- err
				}
				st, err := way.from.open(t.Context(), kind, "x")
				require.NoError(t, err)
				_, err = st.Read(make([]byte, 1)) // a reset overtakes the hello
				require.NoError(t, err)
				way.from.reset(st, 77)
				require.Equal(t, uint32(77), resetCode(<-results), "%s %s", kind, name)

				other := w.bob
				if way.from == w.bob {
					other = w.alice
				}
				way.to.stream = func(st lane, _ string) {
					_, _ = st.Read(make([]byte, 1)) // the opener has the stream
					other.reset(st, 78)
				}
				st, err = way.from.open(t.Context(), kind, "x")
				require.NoError(t, err)
				_, err = st.Write([]byte("before"))
				require.NoError(t, err)
				_, err = io.Copy(io.Discard, st)
				require.Equal(t, uint32(78), resetCode(err), "%s %s", kind, name)
				_ = st.Close()

				if kind == "dedicated" {
					continue // a carrier knows no other end of a direction than the writer's
				}
				way.to.stream = func(st lane, _ string) {
					results <- st.(interface{ CloseRead() error }).CloseRead()
					_, err := st.Write([]byte("the other way goes on"))
					results <- err
				}
				st, err = way.from.open(t.Context(), kind, "x")
				require.NoError(t, err)
				require.NoError(t, <-results)
				require.NoError(t, <-results)
				got, err := io.ReadAll(st)
				require.NoError(t, err, "%s %s", kind, name)
				require.Equal(t, "the other way goes on", string(got))
				_, err = st.Write([]byte("x"))
				require.ErrorIs(t, err, syscall.EPIPE, "%s %s", kind, name)
				require.NoError(t, closeOf(st))
			}
		}
	})
}

// resetCode returns the code of a stream that was reset, also if its carrier tells.
func resetCode(err error) uint32 {
	var r *oldsession.ResetError
	if errors.As(err, &r) {
		return r.Code
	}
	return codeOf(err)
}

func TestBulkLanesOfOldAndNewCarryEveryByte(t *testing.T) {
	for _, strands := range []int{0, 1, 3} { // 0: on a shared stream
		for _, zstd := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d strands, zstd %v", strands, zstd), func(t *testing.T) {
				each(t, terms{link: delayed}, func(t *testing.T, w *world) {
					l, err := w.alice.bulk(t.Context(), strands, zstd)
					require.NoError(t, err)
					echoes(t, l, pattern(3, 2*256<<10+11))
					if strands == 0 {
						l, err := w.bob.bulk(t.Context(), 0, zstd)
						require.NoError(t, err)
						echoes(t, l, pattern(4, 100_000))
					}
				})
			})
		}
	}
}
