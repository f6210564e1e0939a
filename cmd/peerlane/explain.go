package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/peerlane/peerlane/diagnostics"
)

// explainCmd is peerlane explain.
type explainCmd struct {
	peerFlags
	Of   string `arg:"" optional:"" name:"tag" help:"Tag to open a session on; the same as --tag."`
	JSON bool   `name:"json" help:"Print the explanation as JSON."`
}

// notReached is the error of peerlane explain, which has printed everything about it.
type notReached struct{ why *diagnostics.Explanation }

func (e *notReached) Error() string { return e.why.What }
func (e *notReached) Unwrap() error { return e.why }

// Run opens a session, or finds out why it cannot, and prints that.
func (c *explainCmd) Run(ctx context.Context, std stdio) (err error) {
	c.Tag = cmp.Or(c.Of, c.Tag)
	cl, err := c.dial(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.hangUp()) }()
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	why := diagnostics.Explain(ctx, cl.Client, cl.peer.String(), c.Tag)
	if !why.Reached {
		why.Do = say(why.Reason)
	}
	if c.JSON {
		out := json.NewEncoder(std.out)
		out.SetIndent("", "  ")
		err = out.Encode(why)
	} else {
		_, err = fmt.Fprint(std.out, why.String())
	}
	if err == nil && !why.Reached {
		err = &notReached{why}
	}
	return err
}
