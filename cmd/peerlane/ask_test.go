package main

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer"
)

func TestAPersonIsAsked(t *testing.T) {
	r, w := io.Pipe()
	out := new(lockedBuffer)
	d := newDisplay(out)
	a := newAsker(r, d)
	for answer, want := range map[string]bool{"y\n": true, "maybe\nYES\n": true, "n\n": false, " No \n": false} {
		go func() { _, _ = io.WriteString(w, answer) }() // ends when it is read
		yes, err := a.ask(t.Context(), "?")
		require.NoError(t, err)
		require.Equal(t, want, yes, answer)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := a.ask(gone, "?")
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, w.Close())
	_, err = a.ask(t.Context(), "?")
	require.ErrorIs(t, err, errNoAnswer)
}

func TestTheQuestionShowsWhoAndWhat(t *testing.T) {
	r, w := io.Pipe()
	out := new(lockedBuffer)
	d := newDisplay(out)
	decide := decider{dest: transfer.Destination{Dir: "d"}, display: d, asker: newAsker(r, d)}
	in := transfer.Incoming{Peer: "12D3KooWx", Name: "a\x1b[2Jb", Files: 3, Bytes: 1500}
	go func() { _, _ = io.WriteString(w, "n\n") }() // ends when it is read
	_, err := decide.decide(t.Context(), in)
	require.Equal(t, transfer.CodeDenied, transfer.CodeOf(err))
	require.Equal(t, "12D3KooWx wants to push \"a\uFFFD[2Jb\": 3 files, 1.5 kB. Take it? [y/n]\nrefused  \"a\uFFFD[2Jb\" of 12D3KooWx\n", out.String())
	go func() { _, _ = io.WriteString(w, "y\n") }() // ends when it is read
	dest, err := decide.decide(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, "d", dest.Dir)
	require.NoError(t, w.Close())
}
