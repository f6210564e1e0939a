package main

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer"
)

// person answers when they are asked.
type person struct {
	lockedBuffer

	asked chan struct{}
	w     *io.PipeWriter
}

// newPerson returns one, and where their answers come from.
func newPerson() (*person, io.Reader) {
	r, w := io.Pipe()
	return &person{asked: make(chan struct{}, 1), w: w}, r
}

func (p *person) Write(b []byte) (int, error) {
	select {
	case p.asked <- struct{}{}:
	default:
	}
	return p.lockedBuffer.Write(b)
}

// answer answers the next question.
func (p *person) answer(text string) {
	select {
	case <-p.asked:
	default:
	}
	go func() { // ends when the answer is read
		<-p.asked
		_, _ = io.WriteString(p.w, text)
	}()
}

func TestAPersonIsAsked(t *testing.T) {
	p, answers := newPerson()
	a := newAsker(answers, newDisplay(p))
	for answer, want := range map[string]bool{"y\n": true, "maybe\nYES\n": true, "n\n": false, " No \n": false} {
		p.answer(answer)
		yes, err := a.ask(t.Context(), "?")
		require.NoError(t, err)
		require.Equal(t, want, yes, answer)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := a.ask(gone, "?")
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, p.w.Close())
	_, err = a.ask(t.Context(), "?")
	require.ErrorIs(t, err, errNoAnswer)
}

func TestTheQuestionShowsWhoAndWhat(t *testing.T) {
	p, answers := newPerson()
	d := newDisplay(p)
	decide := decider{dest: transfer.Destination{Dir: "d"}, display: d, asker: newAsker(answers, d)}
	in := transfer.Incoming{Peer: "12D3KooWx", Name: "a\x1b[2Jb", Files: 3, Bytes: 1500}
	p.answer("n\n")
	_, err := decide.decide(t.Context(), in)
	require.Equal(t, transfer.CodeDenied, transfer.CodeOf(err))
	require.Regexp(t, "^12D3KooWx .*\"a\uFFFD\\[2Jb\".* 3 files, 1.5 kB.* \\[y/n\\]\nrefused  \"a\uFFFD\\[2Jb\" .*12D3KooWx\n$", p.String())
	p.answer("y\n")
	dest, err := decide.decide(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, "d", dest.Dir)
	require.NoError(t, p.w.Close())
}
