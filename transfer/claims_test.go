package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

// wantInvalid fails unless err is one of the call itself, with a text that has words in it.
func wantInvalid(t *testing.T, err error, words string) {
	t.Helper()
	var e *transfer.Error
	require.ErrorAs(t, err, &e, words)
	require.Equal(t, transfer.CodeInvalid, e.Code, words)
	require.ErrorContains(t, err, words)
	require.NotEmpty(t, e.Op)
}

// Claim: transfer.Ref.Token
// Claim: transfer.ReceiveOptions.Tokens
// Claim: transfer.ShareOptions.Token
// Claim: transfer.CodeInvalid
func TestTokensHaveAtMost64Bytes(t *testing.T) {
	p := newPair(t)
	v := service(t, p, nil)
	tree := walk(t, write(t, content{"f": 10}))
	for n, ok := range map[int]bool{0: true, 1: true, 16: true, 63: true, 64: true, 65: false, 1 << 16: false} {
		token := bytes.Repeat([]byte{7}, n)
		share, err := v.Share(tree, &transfer.ShareOptions{Token: token})
		if !ok {
			wantInvalid(t, err, "ShareOptions.Token")
			share, err = v.Share(tree, nil)
		}
		require.NoError(t, err)
		ref := share.Ref()
		_, err = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, transfer.Ref{Root: ref.Root, Token: token}, t.TempDir(), nil).Wait()
		if ok {
			require.NoError(t, err, "%d bytes", n)
		} else {
			wantInvalid(t, err, "Ref.Token")
		}
		_, err = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, transfer.Ref{Root: ref.Root}, t.TempDir(),
			&transfer.ReceiveOptions{Tokens: [][]byte{token}}).Wait()
		if ok {
			require.NoError(t, err, "%d bytes", n)
		} else {
			wantInvalid(t, err, "ReceiveOptions.Tokens[0]")
		}
		share.Close()
	}
}

func TestArgumentsThatAreNilAreErrors(t *testing.T) {
	p := newPair(t)
	service(t, p, into(t.TempDir(), transfer.ReceiveOptions{}))
	tree := walk(t, write(t, content{"f": 10}))
	_, err := transfer.Push(t.Context(), nil, tree, nil).Wait()
	wantInvalid(t, err, "dial is nil")
	_, err = transfer.Push(t.Context(), always(p.Alice), nil, nil).Wait()
	wantInvalid(t, err, "tree is nil")
	nothing := func(context.Context) (*session.Session, error) { return nil, nil }
	_, err = transfer.Push(t.Context(), nothing, tree, nil).Wait()
	wantInvalid(t, err, "neither a session nor an error")
	_, err = transfer.Push(t.Context(), func(context.Context) (*session.Session, error) { return nil, (*transfer.Error)(nil) }, tree, nil).Wait()
	require.ErrorContains(t, err, "a nil *fault.Error")
	require.Empty(t, transfer.CodeOf((*transfer.Error)(nil)))
	for words, sources := range map[string][]transfer.Dialer{
		"no source": nil, "source 0 is nil": {nil}, "source 1 is nil": {always(p.Alice), nil}, "neither a session nor an error": {nothing},
	} {
		_, err = transfer.Fetch(t.Context(), sources, transfer.Ref{}, t.TempDir(), nil).Wait()
		wantInvalid(t, err, words)
	}
	v, err := transfer.NewService(nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, v.Close()) }()
	_, err = v.Share(nil, nil)
	wantInvalid(t, err, "tree is nil")
}

// A Tree that Walk has not made has nothing in it, and sends that.
func TestAZeroTreeIsEmpty(t *testing.T) {
	p := newPair(t)
	service(t, p, into(t.TempDir(), transfer.ReceiveOptions{}))
	result, err := transfer.Push(t.Context(), always(p.Alice), new(source.Tree), nil).Wait()
	require.NoError(t, err)
	require.Zero(t, result.Progress.Files)
}

// What a caller does to a Ref is its own.
func TestTheRefOfAShareIsACopy(t *testing.T) {
	p := newPair(t)
	v := service(t, p, nil)
	given := bytes.Repeat([]byte{1}, 16)
	share, err := v.Share(walk(t, write(t, content{"f": 10})), &transfer.ShareOptions{Token: given, Many: true})
	require.NoError(t, err)
	defer share.Close()
	good := transfer.Ref{Root: share.Ref().Root, Token: bytes.Clone(share.Ref().Token)}
	share.Ref().Token[0]++
	given[0]++
	require.Equal(t, good, share.Ref())
	_, err = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, good, t.TempDir(), nil).Wait()
	require.NoError(t, err)
}

// when returns the time of each event of a kind, since began.
func when(k *told, at func() time.Duration) (event func(transfer.Event), times func(transfer.EventKind) []time.Duration) {
	all := make(map[transfer.EventKind][]time.Duration)
	return func(e transfer.Event) {
			k.event(e)
			k.mu.Lock()
			defer k.mu.Unlock()
			all[e.Kind] = append(all[e.Kind], at())
		}, func(kind transfer.EventKind) []time.Duration {
			k.mu.Lock()
			defer k.mu.Unlock()
			return all[kind]
		}
}

// Claim: transfer.Options.StallAfter
// Claim: transfer.Progress.Stalls
// Claim: transfer.CodeStalled
func TestStallAfterIsWhenTheLanesAndThenTheConnectionAreReplaced(t *testing.T) {
	from := write(t, content{"large": 4 << 20})
	for set, want := range map[time.Duration]time.Duration{0: 15 * time.Second, 5 * time.Second: 5 * time.Second, time.Minute: time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t)
			share, err := service(t, p, nil).Share(walk(t, from), nil)
			require.NoError(t, err)
			defer share.Close()
			p.OnLink(func(l *peerlanetest.Link) { l.Freeze() }) // no data lane says anything
			began := time.Now()
			var k told
			event, times := when(&k, func() time.Duration { return time.Since(began) })
			got := transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), t.TempDir(), &transfer.ReceiveOptions{
				Options: transfer.Options{StallAfter: set, ResumeWindow: -1, OnEvent: event}})
			result, err := got.Wait()
			require.Equal(t, transfer.CodeStalled, transfer.CodeOf(err), "%v", err)
			require.Equal(t, 1, result.Progress.Stalls)
			stalled := times(transfer.EventStalled)
			require.Len(t, stalled, 1)
			within := func(at, want time.Duration) {
				t.Helper()
				require.True(t, at >= want && at <= want+3*time.Second, "StallAfter %v: %v, want %v", set, at, want)
			}
			within(stalled[0], want)
			within(time.Since(began), 2*want)
		})
	}
}

// Claim: transfer.Options.ResumeWindow
// Claim: transfer.Progress.Losses
// Claim: transfer.CodeLost
func TestPatienceCountsTheTimeWithoutAConnectionAndWithoutBytes(t *testing.T) {
	from := write(t, content{"large": 4 << 20})
	gone := errors.New("gone")
	for set, want := range map[time.Duration]time.Duration{0: 2 * time.Minute, 10 * time.Second: 10 * time.Second, -1: 0} {
		for name, decides := range map[string]time.Duration{"at once": 0, "a person who takes an hour": time.Hour} {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				asked := make(chan struct{})
				service(t, p, &transfer.ServiceConfig{Receive: func(ctx context.Context, _ transfer.Incoming) (*transfer.Destination, error) {
					close(asked)
					<-ctx.Done()
					return nil, ctx.Err()
				}})
				dials := 0
				var left time.Time
				dial := func(context.Context) (*session.Session, error) {
					if dials++; dials == 1 {
						return p.Alice, nil
					}
					return nil, gone
				}
				sent := transfer.Push(t.Context(), dial, walk(t, from), &transfer.Options{ResumeWindow: set})
				<-asked
				time.Sleep(decides)
				left = time.Now()
				_, _ = p.Alice.Close(), p.Bob.Close()
				result, err := sent.Wait()
				require.Equal(t, transfer.CodeLost, transfer.CodeOf(err), "%v", err)
				took := time.Since(left)
				require.True(t, took >= want && took <= want+6*time.Second, "ResumeWindow %v, %s: %v", set, name, took)
				if set < 0 {
					require.Equal(t, 1, dials)
				} else {
					require.ErrorIs(t, err, gone)
					require.Equal(t, dials-1, result.Progress.Losses)
				}
			})
		}
	}
	synctest.Test(t, func(t *testing.T) { // a peer that was never reached is not waited for
		began := time.Now()
		_, err := transfer.Push(t.Context(), func(context.Context) (*session.Session, error) { return nil, gone }, walk(t, from), nil).Wait()
		require.ErrorIs(t, err, gone)
		require.Zero(t, time.Since(began))
	})
}

// Claim: transfer.ShareOptions.Many
// Claim: transfer.CodeNotFound
func TestAShareIsForTheFirstPeerThatShowsTheTokenOrForMany(t *testing.T) {
	for _, many := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t)
			v := service(t, p, nil)
			v.Handle(p.ToAlice) // which is bob's, the other peer
			share, err := v.Share(walk(t, write(t, content{"f": 10})), &transfer.ShareOptions{Many: many})
			require.NoError(t, err)
			defer share.Close()
			fetch := func(s *session.Session, ref transfer.Ref) error {
				_, err := transfer.Fetch(t.Context(), []transfer.Dialer{always(s)}, ref, t.TempDir(), nil).Wait()
				return err
			}
			wrong := share.Ref()
			wrong.Token[3]++
			refused := func(err error) {
				t.Helper()
				var e *transfer.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, transfer.CodeNotFound, e.Code)
				require.True(t, e.Remote)
			}
			refused(fetch(p.Bob, wrong)) // which does not make it bob's
			require.NoError(t, fetch(p.Alice, share.Ref()))
			if many {
				require.NoError(t, fetch(p.Bob, share.Ref()))
			} else {
				refused(fetch(p.Bob, share.Ref()))
			}
			require.NoError(t, fetch(p.Alice, share.Ref()), "as often as it likes")
			share.Close()
			refused(fetch(p.Alice, share.Ref()))
		})
	}
}
