package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer"
)

// newTestDecider returns one that asks a person.
func newTestDecider(t *testing.T) (*decider, *person) {
	p, answers := newPerson()
	d := newDisplay(p)
	decide := newDecider(transfer.Destination{Dir: "d"}, d)
	decide.asker = newAsker(answers, d)
	t.Cleanup(func() { require.NoError(t, p.w.Close()) })
	return decide, p
}

func TestTheQuestionShowsWhoAndWhat(t *testing.T) {
	decide, p := newTestDecider(t)
	in := transfer.Incoming{Peer: "12D3KooWx", Name: "a\x1b[2Jb", Files: 3, Bytes: 1500}
	p.answer("n\n")
	_, err := decide.decide(t.Context(), in)
	require.Equal(t, transfer.CodeDenied, transfer.CodeOf(err))
	require.Regexp(t, "^12D3KooWx .*\"a\uFFFD\\[2Jb\".* 3 files, 1.5 kB.* \\[y/n\\]\nrefused  \"a\uFFFD\\[2Jb\" .*12D3KooWx: .*\n$", p.String())
	in.Peer, in.LeftOut = "12D3KooWy", 1
	in.Entries = []transfer.Entry{{Kind: transfer.KindFile, Path: "a\x1b", Size: 1000}, {Kind: transfer.KindFile, Path: "b/c", Size: 500}}
	p.answer("y\n")
	dest, err := decide.decide(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, "d", dest.Dir)
	require.Contains(t, p.String(), "\noffers   \"a\uFFFD\": 1.0 kB\noffers   \"b/\": 1 file, 500 B\n12D3KooWy wants to push ")
	require.Contains(t, p.String(), ", 1 item left out. Take it?")
}

func TestAPeerThatWasRefusedIsNotAskedAboutAgain(t *testing.T) {
	decide, p := newTestDecider(t)
	asked := func() int { return strings.Count(p.String(), "[y/n]") }
	errs := make(chan error, 2)
	for range 2 { // the second one waits for the answer to the first
		go func() { // ends with the answer
			_, err := decide.decide(t.Context(), transfer.Incoming{Peer: "bad", Name: "x"})
			errs <- err
		}()
	}
	require.Eventually(t, func() bool {
		decide.mu.Lock()
		defer decide.mu.Unlock()
		return decide.total == 2 && asked() == 1
	}, 30*time.Second, time.Millisecond)
	_, err := fmt.Fprintln(p.w, "n")
	require.NoError(t, err)
	for range 2 {
		require.Equal(t, transfer.CodeDenied, transfer.CodeOf(<-errs))
	}
	require.Equal(t, 1, asked())
	require.Equal(t, transfer.CodeDenied, transfer.CodeOf(decide.admit("bad")))
	require.NoError(t, decide.admit("good"))
	p.answer("y\n")
	_, err = decide.decide(t.Context(), transfer.Incoming{Peer: "good", Name: "x"})
	require.NoError(t, err)
	require.NoError(t, decide.admit("good"))

	for i := range mostRefused {
		decide.refuse(fmt.Sprint(i))
		decide.refuse(fmt.Sprint(i))
	}
	require.NoError(t, decide.admit("bad"), "the oldest one is forgotten")
	require.Error(t, decide.admit("0"))
	require.Len(t, decide.refused, mostRefused)
	require.Len(t, decide.order, mostRefused)
}

func TestOnlySoManyQuestionsWait(t *testing.T) {
	decide, p := newTestDecider(t)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	question := func(peer string) {
		decide.mu.Lock()
		before := decide.total
		decide.mu.Unlock()
		all.Go(func() {
			_, err := decide.decide(ctx, transfer.Incoming{Peer: peer, Name: "x"})
			require.ErrorIs(t, err, context.Canceled)
		})
		require.Eventually(t, func() bool {
			decide.mu.Lock()
			defer decide.mu.Unlock()
			return decide.total == before+1
		}, 30*time.Second, time.Millisecond)
	}
	busy := func(peer string) {
		_, err := decide.decide(ctx, transfer.Incoming{Peer: peer, Name: "x"})
		require.Equal(t, transfer.CodeBusy, transfer.CodeOf(err), peer)
	}
	for range mostQuestionsEach {
		question("one")
	}
	busy("one")
	for i := range mostQuestions - mostQuestionsEach {
		question(fmt.Sprint(i))
	}
	busy("another")
	cancel()
	all.Wait()
	require.Zero(t, decide.total)
	require.Empty(t, decide.waiting)
	require.NoError(t, decide.admit("one"), "that was no refusal")
	p.answer("y\n")
	_, err := decide.decide(t.Context(), transfer.Incoming{Peer: "another", Name: "x"})
	require.NoError(t, err)
}

func TestWhoIsOnTheListIsNotAskedAbout(t *testing.T) {
	decide := newDecider(transfer.Destination{Dir: "d"}, newDisplay(new(lockedBuffer)))
	for range 2 * mostQuestions {
		dest, err := decide.decide(t.Context(), transfer.Incoming{Peer: "one", Name: "x"})
		require.NoError(t, err)
		require.Equal(t, "d", dest.Dir)
	}
	require.NoError(t, decide.admit("one"))
}
