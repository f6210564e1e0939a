package bulk

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/defaults"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/lane"
)

// breaches are what a peer may send on the strands of a lane, what of it is read, and the error after that.
var breaches = map[string]struct {
	strands [][]byte
	half    bool // the strands end
	read    string
	err     error
}{
	"in order":                        {[][]byte{cat(rawBlock(0, "a"), rawBlock(1, "b"), rawEnd(2))}, true, "ab", nil},
	"turned around":                   {[][]byte{rawBlock(1, "b"), rawBlock(0, "a"), rawEnd(2)}, true, "ab", nil},
	"a strand that is not used":       {[][]byte{nil, cat(rawBlock(0, "a"), rawEnd(1))}, true, "a", nil},
	"a kind that is none":             {[][]byte{{9, 22: 0}}, false, "", errProtocol},
	"zstd that is none":               {[][]byte{rawZstd(0, []byte("none"), 100)}, false, "", errProtocol},
	"a number again":                  {[][]byte{cat(rawBlock(0, "a"), rawBlock(0, "a"))}, false, "a", errProtocol},
	"a number again on another":       {[][]byte{rawBlock(0, "a"), rawBlock(0, "a")}, false, "a", errProtocol},
	"a number that goes back":         {[][]byte{cat(rawBlock(1, "b"), rawBlock(0, "a"))}, false, "", errProtocol},
	"a number that never comes":       {[][]byte{rawBlock(5, "b")}, true, "", errProtocol},
	"numbers that never come":         {[][]byte{rawBlock(5, "b"), rawBlock(3, "c"), rawBlock(^uint64(0), "d")}, false, "", errProtocol},
	"one that never comes, and ends":  {[][]byte{rawBlock(5, "b"), rawBlock(0, "a")}, true, "a", errProtocol},
	"END early":                       {[][]byte{cat(rawBlock(0, "a"), rawEnd(0))}, false, "a", errProtocol},
	"END that never comes":            {[][]byte{cat(rawBlock(0, "a"), rawEnd(7))}, false, "a", errProtocol},
	"END twice":                       {[][]byte{cat(rawEnd(0), rawEnd(0))}, false, "", errProtocol},
	"a block after END":               {[][]byte{cat(rawEnd(0), rawBlock(0, "a"))}, false, "", errProtocol},
	"a block far after END":           {[][]byte{cat(rawEnd(0), rawBlock(9, "a"))}, false, "", errProtocol},
	"no END":                          {[][]byte{rawBlock(0, "a"), rawBlock(1, "b")}, true, "ab", io.ErrUnexpectedEOF},
	"nothing":                         {[][]byte{nil, nil}, true, "", io.ErrUnexpectedEOF},
	"half a head":                     {[][]byte{rawBlock(0, "abc")[:7]}, true, "", io.ErrUnexpectedEOF},
	"half a block":                    {[][]byte{rawBlock(0, "abc")[:blockHead+2]}, true, "", io.ErrUnexpectedEOF},
	"RAW whose length is not its raw": {[][]byte{{1, 7: 1, 11: 2, 19: 0, 22: 0}}, false, "", errProtocol},
}

func cat(parts ...[]byte) []byte { return slices.Concat(parts...) }

func TestLanesEndWhenAPeerBreaksTheProtocol(t *testing.T) {
	for name, test := range breaches {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, far := rawLane(true, len(test.strands), faultnet.LinkOptions{})
				for i, b := range test.strands {
					_, err := far[i].Write(b)
					require.NoError(t, err)
					if test.half {
						require.NoError(t, far[i].CloseWrite())
					}
				}
				require.NoError(t, f.SetReadDeadline(time.Now().Add(time.Minute)))
				got, err := io.ReadAll(f)
				if err != nil && len(got) < len(test.read) {
					require.Equal(t, test.read[:len(got)], string(got), "what has not been read is dropped with the lane")
				} else {
					require.Equal(t, test.read, string(got))
				}
				synctest.Wait()
				if test.err == nil {
					require.NoError(t, err)
					_, err = f.Write([]byte("the other way"))
					require.NoError(t, err)
				} else if err == nil { // it had read the END before
					_, err = f.Write([]byte("x"))
					require.ErrorIs(t, err, test.err)
				} else {
					require.ErrorIs(t, err, test.err)
				}
				for i := range far {
					_ = far[i].CloseWrite()
				}
				require.NoError(t, f.Close())
				<-f.done
			})
		})
	}
}

// A block that waits for one that another strand may still bring waits as long as the reader, and no longer than the lane.
func TestAGapIsBoundedByTheDeadlineAndByClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, far := rawLane(false, 2, faultnet.LinkOptions{})
		_, err := far[0].Write(cat(rawBlock(5, "five"), rawBlock(6, "six")))
		require.NoError(t, err)
		began := time.Now()
		require.NoError(t, f.SetReadDeadline(began.Add(time.Minute)))
		_, err = f.Read(make([]byte, 10))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(began))
		require.NoError(t, f.SetReadDeadline(time.Time{}))
		read := make(chan error)
		go func() {
			_, err := f.Read(make([]byte, 10))
			read <- err
		}()
		synctest.Wait()
		require.Equal(t, []uint64{5}, f.held, "one block, and no more is read of that strand")
		require.NoError(t, f.Close())
		require.ErrorIs(t, <-read, net.ErrClosed)
		<-f.done
		require.Empty(t, f.held)
	})
}

// Close waits for defaults.Close when nothing moves, says so, and leaves nothing behind, whatever the peer does.
func TestCloseIsBoundedWhenThePeerNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := rawLane(false, 3, faultnet.LinkOptions{Buffer: 1000})
		wrote := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := f.Write(make([]byte, 100*maxBlock))
				wrote <- err
			}()
		}
		synctest.Wait()
		require.Empty(t, wrote)
		require.LessOrEqual(t, len(f.queue), 3)
		began := time.Now()
		closed := make(chan error, 1)
		go func() { closed <- f.Close() }()
		synctest.Wait()
		require.NoError(t, f.Close(), "again")
		require.Zero(t, time.Since(began))
		require.ErrorIs(t, <-closed, os.ErrDeadlineExceeded)
		require.ErrorIs(t, <-wrote, net.ErrClosed)
		require.ErrorIs(t, <-wrote, net.ErrClosed)
		<-f.done
		require.Equal(t, defaults.Close, time.Since(began))
		_, err := f.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
		require.ErrorIs(t, f.CloseWrite(), net.ErrClosed)
		require.ErrorIs(t, f.SetDeadline(time.Now()), net.ErrClosed)
		require.Empty(t, f.queue)
	})
}

// A Write that a deadline ends has said how much the lane took, and exactly that arrives.
func TestAWriteDeadlineInTheMiddleLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, far := rawLane(false, 2, faultnet.LinkOptions{Buffer: 1000})
		body := theBytes(20 * maxBlock)
		require.NoError(t, here.SetWriteDeadline(time.Now().Add(time.Second)))
		n, err := here.Write(body)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 4*maxBlock, n, "two queued, and two that are being sent")
		k, err := here.Write(body)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Zero(t, k)
		require.NoError(t, here.SetWriteDeadline(time.Time{}))
		there := newFramed(false, 2)
		for i := range far {
			require.True(t, there.join(i, far[i]))
		}
		go func() {
			_, err := here.Write(body[n:])
			if err == nil {
				err = here.CloseWrite()
			}
			if err != nil {
				panic(err)
			}
		}()
		got, err := io.ReadAll(there)
		require.NoError(t, err)
		require.True(t, string(body) == string(got))
		_, _ = here.Close(), there.Close()
		<-here.done
		<-there.done
	})
}

// Writes take turns: the bytes of each stay together. CloseWrite beside them ends what has not been taken, and nothing follows END.
func TestWritesTakeTurnsAndNothingFollowsEND(t *testing.T) {
	for range 8 {
		synctest.Test(t, func(t *testing.T) {
			here, far := rawLane(false, 4, faultnet.LinkOptions{})
			there := newFramed(false, 4)
			for i := range far {
				require.True(t, there.join(i, far[i]))
			}
			var all sync.WaitGroup
			var mu sync.Mutex
			taken := 0
			for i := range 4 {
				all.Go(func() {
					for {
						n, err := here.Write(slices.Repeat([]byte{byte(i)}, 3*maxBlock/2))
						mu.Lock()
						taken += n
						mu.Unlock()
						if err != nil {
							return
						}
					}
				})
			}
			all.Go(func() {
				time.Sleep(time.Millisecond)
				_ = here.CloseWrite()
			})
			got := make([]byte, 0)
			b := make([]byte, maxBlock)
			for first := true; ; first = false {
				n, err := there.Read(b)
				got = append(got, b[:n]...)
				if err == io.EOF {
					break
				}
				require.NoError(t, err)
				if first {
					time.Sleep(time.Millisecond)
				}
				if len(got) > 40*maxBlock {
					_ = here.CloseWrite()
				}
			}
			all.Wait()
			require.Len(t, got, taken)
			for i := 0; i+3*maxBlock/2 <= len(got); i += 3 * maxBlock / 2 {
				require.Equal(t, got[i], got[i+3*maxBlock/2-1])
			}
			_, _ = here.Close(), there.Close()
			<-here.done
			<-there.done
		})
	}
}

// A strand that ends before the next one has come is no loss (spec 2.2); nobody comes after strandsTimeout.
func TestAStrandThatEndsBeforeTheNextOneComesIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, comes := range []bool{true, false} {
			f := newFramed(false, 2)
			a, far := faultnet.NewLink(faultnet.LinkOptions{}).Ends()
			b, late := faultnet.NewLink(faultnet.LinkOptions{}).Ends()
			require.True(t, f.join(0, rawStrand{a}))
			f.settle(strandsTimeout)
			require.NoError(t, far.CloseWrite())
			require.NoError(t, f.CloseWrite())
			synctest.Wait()
			began := time.Now()
			if comes {
				_, _ = late.Write(cat(rawBlock(0, "a"), rawEnd(1)))
				_ = late.CloseWrite()
				time.Sleep(time.Second)
				require.True(t, f.join(1, rawStrand{b}))
			}
			got, err := io.ReadAll(f)
			if comes {
				require.NoError(t, err)
				require.Equal(t, "a", string(got))
			} else {
				require.ErrorIs(t, err, io.ErrUnexpectedEOF)
				require.Equal(t, strandsTimeout, time.Since(began))
				require.False(t, f.join(1, rawStrand{b}))
			}
			require.NoError(t, f.Close())
			<-f.done
		}
	})
}

func TestAStrandJoinsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFramed(false, 2)
		a, _ := faultnet.NewLink(faultnet.LinkOptions{}).Ends()
		require.True(t, f.join(1, rawStrand{a}), "the order is free")
		require.False(t, f.join(1, rawStrand{a}), "twice")
		require.False(t, f.join(2, rawStrand{a}), "it was not agreed on")
		require.False(t, f.join(255, rawStrand{a}))
		require.True(t, f.join(0, rawStrand{a}))
		require.NoError(t, f.Reset(1))
		<-f.done
		require.False(t, f.join(0, rawStrand{a}), "it has ended")
	})
}

// What a strand loses, the lane loses, and says so to both who read and who write.
func TestAStrandThatIsLostEndsTheLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, far := rawLane(false, 3, faultnet.LinkOptions{})
		read := make(chan error)
		go func() {
			_, err := f.Read(make([]byte, 10))
			read <- err
		}()
		synctest.Wait()
		far[1].Link().Cut()
		err := <-read
		require.Error(t, err)
		require.NotEqual(t, io.EOF, err)
		<-f.done
		_, werr := f.Write([]byte("x"))
		require.Equal(t, err, werr)
		require.False(t, errors.Is(err, net.ErrClosed))
		require.NoError(t, f.Close())
	})
}

// strandLane is a strand as the lane on it sees it, which moves never and calls moved when it is asked.
type strandLane struct {
	lane.Stream
	untaken uint64
	limit   time.Duration
	moved   func()
}

func (s strandLane) SetPayload(func() uint64)    {}
func (s strandLane) Unread() (uint64, bool)      { return s.untaken, true }
func (s strandLane) CloseTimeout() time.Duration { return s.limit }

func (s strandLane) WriteProgress() uint64 {
	s.moved()
	return 0
}

// takenStrand is a strand of which the peer has left some bytes unread.
type takenStrand struct {
	rawStrand
	untaken uint64
}

var errUntaken = errors.New("the peer has not read all")

func (s takenStrand) ForLane() lane.Stream { return strandLane{untaken: s.untaken, moved: func() {}} }

func (s takenStrand) Close() error {
	_ = s.rawStrand.Close()
	if s.untaken > 0 {
		return errUntaken
	}
	return nil
}

// The peer may leave END unread, and nothing else: not the last bytes of a block on another strand.
func TestOnlyENDMayBeLeftUnread(t *testing.T) {
	for _, c := range []struct {
		untaken [2]uint64 // of the strand that sends END, and of the other one
		lost    bool
	}{
		{untaken: [2]uint64{0, 0}},
		{untaken: [2]uint64{blockHead, 0}},
		{untaken: [2]uint64{blockHead + 1, 0}, lost: true},
		{untaken: [2]uint64{0, 1}, lost: true},
		{untaken: [2]uint64{0, blockHead}, lost: true},
		{untaken: [2]uint64{blockHead, blockHead}, lost: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFramed(false, 2)
			for i := range c.untaken {
				here, _ := faultnet.NewLink(faultnet.LinkOptions{}).Ends()
				require.True(t, f.join(i, &takenStrand{rawStrand: rawStrand{here}}))
			}
			_, err := f.Write([]byte("word"))
			require.NoError(t, err)
			require.NoError(t, f.CloseWrite())
			synctest.Wait()
			for _, st := range f.strands {
				of := 1
				if f.endOn == st {
					of = 0
				}
				st.(*takenStrand).untaken = c.untaken[of]
			}
			err = f.Close()
			if c.lost {
				require.ErrorIs(t, err, errUntaken)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

// stuckStrand is a strand whose Write ends only some time after Reset.
type stuckStrand struct {
	rawStrand
	limit time.Duration
	after time.Duration
	asked *int
	over  chan struct{}
}

func (s stuckStrand) ForLane() lane.Stream {
	return strandLane{limit: s.limit, moved: func() { *s.asked++ }}
}

func (s stuckStrand) Write([]byte) (int, error) {
	<-s.over
	return 0, net.ErrClosed
}

func (s stuckStrand) Reset(code codes.Code) error {
	time.AfterFunc(s.after, func() { close(s.over) })
	return s.rawStrand.Reset(code)
}

// Close gives up after the CloseTimeout of the strand's session, and does not spin while the strand takes its time to end.
func TestCloseHasTheTimeoutOfTheSession(t *testing.T) {
	for _, limit := range []time.Duration{100 * time.Millisecond, 20 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			here, _ := faultnet.NewLink(faultnet.LinkOptions{}).Ends()
			st := stuckStrand{rawStrand{here}, limit, time.Minute, new(int), make(chan struct{})}
			f := newFramed(false, 1)
			require.True(t, f.join(0, st))
			_, err := f.Write([]byte("word"))
			require.NoError(t, err)
			synctest.Wait()
			began := time.Now()
			err = f.Close()
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.ErrorContains(t, err, limit.String())
			require.Equal(t, limit+time.Minute, time.Since(began))
			require.Less(t, *st.asked, 10)
		})
	}
}

// ioStrand is a strand whose ends are seen.
type ioStrand struct {
	rawStrand
	io func()
}

func (s ioStrand) CloseRead() error {
	s.io()
	return s.rawStrand.CloseRead()
}

func (s ioStrand) Reset(code codes.Code) error {
	s.io()
	return s.rawStrand.Reset(code)
}

// Resets and CloseReads of strands are I/O: nobody holds the lane's lock meanwhile, and the lane is not over before them.
func TestStrandsAreEndedOutsideTheLock(t *testing.T) {
	for name, end := range map[string]func(f *framed, far []rawStrand){
		"Reset":     func(f *framed, _ []rawStrand) { _ = f.Reset(codes.Cancelled) },
		"CloseRead": func(f *framed, _ []rawStrand) { _ = f.CloseRead() },
		"fail":      func(f *framed, _ []rawStrand) { f.fail(io.ErrClosedPipe, codes.Cancelled) },
		"settle": func(f *framed, far []rawStrand) {
			for _, st := range far {
				_ = st.CloseWrite()
			}
			synctest.Wait()
			f.settle(0)
		},
		"no block": func(_ *framed, far []rawStrand) { _, _ = far[0].Write(make([]byte, blockHead)) },
		"a number twice": func(_ *framed, far []rawStrand) {
			_, _ = far[0].Write(rawBlock(0, "a"))
			synctest.Wait()
			_, _ = far[1].Write(rawBlock(0, "a"))
		},
		"a loss": func(_ *framed, far []rawStrand) { far[0].Link().Cut() },
		"join after CloseRead": func(f *framed, _ []rawStrand) {
			_ = f.CloseRead()
			here, _ := faultnet.NewLink(faultnet.LinkOptions{}).Ends()
			require.True(t, f.join(2, ioStrand{rawStrand{here}, func() {
				require.True(t, f.mu.TryLock())
				f.mu.Unlock()
			}}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFramed(false, 3)
				far := make([]rawStrand, 2)
				var ended atomic.Int32
				for i := range far {
					here, there := faultnet.NewLink(faultnet.LinkOptions{}).Ends()
					far[i] = rawStrand{there}
					require.True(t, f.join(i, ioStrand{rawStrand{here}, func() {
						time.Sleep(time.Second)
						if !f.mu.TryLock() {
							t.Error("the lock is held")
							return
						}
						f.mu.Unlock()
						select {
						case <-f.done:
							t.Error("the lane is over")
						default:
						}
						ended.Add(1)
					}}))
				}
				end(f, far)
				time.Sleep(time.Minute)
				require.EqualValues(t, len(far), ended.Load())
				_ = f.Reset(codes.Cancelled)
				<-f.done
			})
		})
	}
}

// A lane that is lost has its reader read what has come, in turn, and then the loss: its writer may have been told that it has arrived.
func TestWhatHasComeIsReadBeforeALoss(t *testing.T) {
	for name, lose := range map[string]func(f *framed, far []rawStrand){
		"a strand": func(_ *framed, far []rawStrand) { far[2].Link().Cut() },
		"a write": func(f *framed, _ []rawStrand) {
			f.outFailed(io.ErrClosedPipe, 1)
		},
	} {
		for _, gap := range []bool{false, true} {
			t.Run(fmt.Sprint(name, gap), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f, far := rawLane(false, 3, faultnet.LinkOptions{})
					_, _ = far[0].Write(rawBlock(0, "one "))
					_, _ = far[1].Write(rawBlock(1, "two "))
					if gap {
						_, _ = far[0].Write(rawBlock(3, "four"))
					} else {
						_, _ = far[0].Write(rawBlock(2, "three"))
					}
					synctest.Wait()
					lose(f, far)
					synctest.Wait()
					_, err := f.Write([]byte("x"))
					require.Error(t, err)
					got, err := io.ReadAll(f)
					require.Error(t, err)
					if gap {
						require.Equal(t, "one two ", string(got))
					} else {
						require.Equal(t, "one two three", string(got))
					}
					<-f.done
					require.Error(t, f.err)
				})
			})
		}
	}
	t.Run("Abort", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f, far := rawLane(false, 2, faultnet.LinkOptions{})
			_, _ = far[0].Write(cat(rawBlock(0, "one"), rawBlock(1, "two")))
			synctest.Wait()
			far[1].Link().Cut()
			synctest.Wait()
			require.NoError(t, f.Reset(codes.Cancelled))
			<-f.done
			_, err := f.Read(make([]byte, 1))
			require.ErrorIs(t, err, net.ErrClosed)
		})
	})
}
