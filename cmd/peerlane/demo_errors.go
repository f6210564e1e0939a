package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/session"
)

// typedErrors: what goes wrong can be told apart by errors.Is, and says what may have happened at the peer.
func typedErrors(ctx context.Context, l *lab) (figure string, err error) {
	x, err := newExchange(l, demoTag+"errors", func([]byte) ([]byte, error) { return nil, errors.New("denied") }, keys{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	s, err := x.connect(ctx)
	if err != nil {
		return "", err
	}
	send := func(tag string, size int) error {
		_, err := x.client.Send(ctx, l.b.ID(), protocol.ID(tag), make([]byte, size))
		return err
	}
	_, noLink := s.SendWait(ctx, "nobody", nil)
	_, noStream := s.OpenStream(ctx, "nobody", nil)
	_, dialed := peerlane.Dial(ctx, l.a.Host(), l.b.ID(), demoTag+"nobody")
	failures := []failure{
		{"call of an unknown tag", send(demoTag+"nobody", 1), peerlane.ErrNotServed, session.Rejected, ""},
		{"dial of an unknown tag", dialed, peerlane.ErrNotServed, session.Rejected, ""},
		{"message to an unknown link", noLink, session.ErrNotFound, session.Rejected, ""},
		{"unknown stream", noStream, session.ErrNotFound, session.Rejected, ""},
		{"request over the limit", send(string(x.tag), maxBody+1), peerlane.ErrTooLarge, session.NotSent, ""},
		{"error of the handler", send(string(x.tag), 1), nil, session.Delivered, "denied"},
	}
	for _, f := range failures {
		if err := f.check(); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d kinds, each with its type and outcome", len(failures)), nil
}

// A failure is an error, and what it should be.
type failure struct {
	what    string
	err     error
	is      error // nil: none
	outcome session.Outcome
	text    string // the peer's own words; "": any
}

func (f failure) check() error {
	var e *peerlane.Error
	switch {
	case f.err == nil:
		return fmt.Errorf("%s: no error", f.what)
	case !errors.As(f.err, &e) || f.is != nil && !errors.Is(f.err, f.is):
		return fmt.Errorf("%s: another error: %w", f.what, f.err)
	case e.Outcome != f.outcome:
		return fmt.Errorf("%s: outcome %s, want %s: %w", f.what, e.Outcome, f.outcome, f.err)
	case f.text != "" && e.Text != f.text:
		return fmt.Errorf("%s: text %q: %w", f.what, e.Text, f.err)
	}
	return nil
}
