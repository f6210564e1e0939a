package main

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
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
		yes, err := a.ask(t.Context(), "?", nil)
		require.NoError(t, err)
		require.Equal(t, want, yes, answer)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := a.ask(gone, "?", nil)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, p.w.Close())
	_, err = a.ask(t.Context(), "?", nil)
	require.ErrorIs(t, err, errNoAnswer)
}
