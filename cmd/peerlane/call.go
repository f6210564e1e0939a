package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// callCmd is peerlane call.
type callCmd struct {
	peerFlags
	Data  *string `xor:"body" help:"Request body. Without --data and --file it is read from stdin."`
	File  string  `xor:"body" placeholder:"FILE" help:"File with the request body."`
	Raw   bool    `help:"Write the response to a terminal as it is, control characters and all. Elsewhere it always is."`
	Retry bool    `help:"While the peer cannot be reached, try again until --timeout. A call that may have run is not repeated."`
}

// maxBody is the most bytes of a request: the default of ClientConfig.MaxBlockSize.
const maxBody = 32 << 20

// maxRetries is the most that ClientConfig takes: the timeout comes first.
const maxRetries = 1 << 20

// Run makes one call.
func (c *callCmd) Run(ctx context.Context, std stdio) (err error) {
	body, err := c.body(std)
	if err != nil {
		return err
	}
	retries := 0
	if c.Retry {
		retries = maxRetries
	}
	cl, err := c.dial(ctx, retries)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.hangUp()) }()
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	response, err := cl.Send(ctx, cl.peer, cl.tag, body)
	if err != nil {
		return err
	}
	if !c.Raw && std.isTerminal() {
		response = escaped(response)
	}
	if _, err := std.out.Write(response); err != nil {
		return err
	}
	if d := newDisplay(std.err); d.tty {
		cl.showPath(ctx, d)
	}
	return nil
}

// body returns the request.
func (c *callCmd) body(std stdio) ([]byte, error) {
	if c.Data != nil {
		return []byte(*c.Data), nil
	}
	in := std.in
	if c.File != "" {
		f, err := os.Open(c.File)
		if err != nil {
			return nil, fmt.Errorf("--file: %w", err)
		}
		defer func() { _ = f.Close() }() // opened for reading
		in = f
	}
	body, err := io.ReadAll(io.LimitReader(in, maxBody+1))
	if err == nil && len(body) > maxBody {
		err = fmt.Errorf("request body: over %d bytes, the most that one call carries", maxBody)
	}
	return body, err
}
