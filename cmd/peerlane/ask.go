package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
)

// asker asks a person, one question after the other.
type asker struct {
	display *display
	turn    chan struct{} // who has its token asks
	lines   chan string   // closed at the end of the input
}

// newAsker returns an asker whose answers come from in. It has a goroutine that reads in, which ends with in, or when nobody takes the
// last line any more with the process.
func newAsker(in io.Reader, d *display) *asker {
	a := &asker{display: d, turn: make(chan struct{}, 1), lines: make(chan string)}
	go a.read(in)
	return a
}

func (a *asker) read(in io.Reader) {
	defer close(a.lines)
	for s := bufio.NewScanner(in); s.Scan(); {
		a.lines <- s.Text()
	}
}

var errNoAnswer = errors.New("nobody is there to answer")

// ask returns whether the answer is yes. What was typed before the question does not count. If isMoot, which may be nil, reports true once it
// is the question's turn, the answer is no.
func (a *asker) ask(ctx context.Context, question string, isMoot func() bool) (yes bool, err error) {
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-a.turn }()
	if isMoot != nil && isMoot() {
		return false, nil
	}
	for drained := false; !drained; {
		select {
		case _, open := <-a.lines:
			drained = !open
		default:
			drained = true
		}
	}
	for {
		a.display.printf("%s", question)
		select {
		case line, open := <-a.lines:
			if !open {
				return false, errNoAnswer
			}
			switch strings.ToLower(strings.TrimSpace(line)) {
			case "y", "yes":
				return true, nil
			case "n", "no":
				return false, nil
			}
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}
