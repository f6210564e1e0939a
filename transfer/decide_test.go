package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

func TestAPersonWhoDecidesLearnsThatThePeerHasGivenUp(t *testing.T) {
	from := write(t, few)
	for name, end := range map[string]func(g *rogue){
		"by ABORT":               func(g *rogue) { g.send(wire.KindAbort, false, wire.Why{Code: "canceled"}.Append) },
		"by a reset":             func(g *rogue) { _ = g.st.Reset(0) },
		"with its session":       func(g *rogue) { _ = g.s.Close() },
		"by what nobody may say": func(g *rogue) { g.send(wire.KindListed, false, wire.Listed{}.Append) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				asked, over := make(chan struct{}), make(chan struct{})
				service(t, p, &transfer.ServiceConfig{Receive: func(ctx context.Context, _ transfer.Incoming) (*transfer.Destination, error) {
					close(asked)
					<-ctx.Done()
					close(over)
					return nil, ctx.Err()
				}})
				g := &rogue{t: t, s: p.Alice}
				g.hello(wire.Sender)
				g.list(walk(t, from).Entries())
				<-asked
				time.Sleep(time.Hour) // in virtual time: a person may take it
				began := time.Now()
				end(g)
				<-over
				require.Less(t, time.Since(began), time.Second)
			})
		})
	}
}

func TestAPersonMayTakeLong(t *testing.T) {
	from, to := write(t, few), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		service(t, p, &transfer.ServiceConfig{Receive: func(_ context.Context, in transfer.Incoming) (*transfer.Destination, error) {
			require.Equal(t, 7, in.Files)
			time.Sleep(time.Hour) // in virtual time
			return &transfer.Destination{Dir: to}, nil
		}})
		_, err := transfer.Push(t.Context(), always(p.Alice), walk(t, from), nil).Wait()
		require.NoError(t, err)
	})
	same(t, from, filepath.Join(to, "tree"))
}

// Claim: transfer.CodeDenied, transfer.ServiceConfig.Receive, transfer.Error.Remote, transfer.Error.Text, transfer.Error.Code
func TestARefusalIsToldAndNothingElse(t *testing.T) {
	from := write(t, few)
	const silent = "the peer does not take it"
	for _, v := range []struct {
		text string
		err  error
	}{
		{silent, errors.New("/home/me has no room")},
		{silent, nil},
		{silent, (*transfer.Error)(nil)},
		{silent, &transfer.Error{Code: transfer.CodeIO, Path: "/home/me"}},
		{"come back later", &transfer.Error{Code: transfer.CodeDenied, Text: "come back later"}},
		{"come back later", fmt.Errorf("no: %w", &transfer.Error{Text: "come back later"})},
		{"come back later", &transfer.Error{Code: "a code of the application's", Text: "come back later"}},
		{"\uFFFD", &transfer.Error{Text: "\xff"}},
		{strings.Repeat("n", 1<<10), &transfer.Error{Text: strings.Repeat("n", 1<<17)}},
	} {
		for _, admits := range []bool{true, false} {
			if !admits && v.err == nil {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				cfg := &transfer.ServiceConfig{Receive: func(context.Context, transfer.Incoming) (*transfer.Destination, error) {
					return nil, v.err
				}}
				if !admits {
					cfg.Admit = func(string) error { return v.err }
				}
				service(t, p, cfg)
				began := time.Now()
				_, err := transfer.Push(t.Context(), always(p.Alice), walk(t, from), nil).Wait()
				var e *transfer.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, transfer.CodeDenied, e.Code, "%v", err)
				require.True(t, e.Remote)
				require.Equal(t, v.text, e.Text)
				require.Zero(t, time.Since(began))
			})
		}
	}
}

// Claim: transfer.CodePathUnsafe
func TestAFolderThatBecomesALinkLeadsNowhere(t *testing.T) {
	to, untouched := guard(t)
	from := write(t, content{"a/first": 1 << 20, "b/later": 3 << 20})
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		time.AfterFunc(2500*time.Millisecond, func() { // the first settling has made tree/a
			require.NoError(t, os.RemoveAll(filepath.Join(to, "tree", "b")))
			require.NoError(t, os.MkdirAll(filepath.Join(to, "tree"), 0o755))
			require.NoError(t, os.Symlink("../..", filepath.Join(to, "tree", "b")))
		})
		_, err := moved(t.Context(), t, "fetch", p, walk(t, from), to, transfer.ReceiveOptions{Options: transfer.Options{Rate: 1 << 20}})
		require.Equal(t, transfer.CodePathUnsafe, transfer.CodeOf(err), "%v", err)
	})
	untouched()
}

func TestMoreLanesThanThereMayBeAreDropped(t *testing.T) {
	from, to := write(t, few), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		service(t, p, into(to, transfer.ReceiveOptions{}))
		g := &rogue{t: t, s: p.Alice}
		g.hello(wire.Sender)
		g.list(walk(t, from).Entries())
		g.expect(wire.KindWant)
		lanes := make([]*bulk.Lane, 40)
		for i := range lanes {
			lanes[i] = g.lane()
		}
		synctest.Wait()
		open := 0
		for _, l := range lanes {
			_ = l.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := l.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				open++
			} else {
				require.ErrorIs(t, err, io.EOF)
			}
			_ = l.Close()
		}
		require.Equal(t, wire.MaxLanes, open)
		_ = g.st.Reset(0)
	})
}

// What is wrong with its Destination, the application learns from the transfer: the peer is told no more than that this side failed.
// Claim: transfer.Destination.Dir
func TestAWrongDestinationIsToldToTheApplication(t *testing.T) {
	from := write(t, few)
	for name, wrong := range map[string]transfer.Destination{
		"a folder that there is not": {Dir: filepath.Join(t.TempDir(), "nowhere")},
		"an option":                  {Dir: t.TempDir(), ReceiveOptions: transfer.ReceiveOptions{Options: transfer.Options{Lanes: 99}}},
	} {
		p := newPair(t)
		begun := make(chan *transfer.Transfer, 1)
		service(t, p, &transfer.ServiceConfig{
			Receive: func(context.Context, transfer.Incoming) (*transfer.Destination, error) { return &wrong, nil },
			OnBegun: func(t *transfer.Transfer) { begun <- t },
		})
		_, err := transfer.Push(t.Context(), always(p.Alice), walk(t, from), nil).Wait()
		require.Equal(t, transfer.CodeIO, transfer.CodeOf(err), "%s: %v", name, err)
		require.NotContains(t, err.Error(), wrong.Dir)
		_, err = (<-begun).Wait()
		require.Error(t, err, name)
		require.NotEqual(t, transfer.CodeLost, transfer.CodeOf(err), "%s: %v", name, err)
	}
}

// Of very many files that fail, the codes are kept, and not the peer's words.
func TestThePeersWordsDoNotFillTheMemory(t *testing.T) {
	files := make(content)
	for i := range 1200 {
		files[fmt.Sprint(i)] = 1
	}
	from := write(t, files)
	p := newPair(t)
	tree := walk(t, from)
	for name := range files {
		require.NoError(t, os.WriteFile(filepath.Join(from, name), []byte("changed"), 0o644))
	}
	begun := make(chan *transfer.Transfer, 1)
	cfg := into(t.TempDir(), transfer.ReceiveOptions{})
	cfg.OnBegun = func(t *transfer.Transfer) { begun <- t }
	service(t, p, cfg)
	_, err := transfer.Push(t.Context(), always(p.Alice), tree, nil).Wait()
	require.Equal(t, transfer.CodeSourceChanged, transfer.CodeOf(err), "%v", err)
	result, _ := (<-begun).Wait()
	require.Len(t, result.Failed, len(files))
	with := 0
	for _, e := range result.Failed {
		require.Equal(t, transfer.CodeSourceChanged, e.Code)
		if e.Text != "" {
			with++
		}
	}
	require.Equal(t, 1000, with)
}

func TestAReceiverThatIsBusyIsAskedAgain(t *testing.T) {
	from, to := write(t, few), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		asked := 0
		service(t, p, &transfer.ServiceConfig{Receive: func(context.Context, transfer.Incoming) (*transfer.Destination, error) {
			if asked++; asked < 4 {
				return nil, &transfer.Error{Code: transfer.CodeBusy, Text: "three others first"}
			}
			return &transfer.Destination{Dir: to}, nil
		}})
		_, err := transfer.Push(t.Context(), always(p.Alice), walk(t, from), nil).Wait()
		require.NoError(t, err)
		require.Equal(t, 4, asked)

		asked = -100
		_, err = transfer.Push(t.Context(), always(p.Alice), walk(t, from), &transfer.Options{ResumeWindow: -1}).Wait()
		var e *transfer.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, transfer.CodeBusy, e.Code)
		require.Equal(t, "three others first", e.Text)
	})
}
