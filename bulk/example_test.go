package bulk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/session"
)

// connect opens a session from alice to bob over pipes; mux has bob's handlers.
func connect(mux *session.Mux) *session.Session {
	bob, err := session.NewAcceptor(&session.AcceptorConfig{Config: session.Config{Local: "bob", Mux: mux}})
	if err != nil {
		panic(err)
	}
	open := func(context.Context, session.Want) (net.Conn, error) {
		near, far := net.Pipe()
		go func() { _ = bob.Serve(far, "alice") }()
		return near, nil
	}
	conn, _ := open(context.Background(), session.Want{})
	s, err := session.Dial(context.Background(), conn, "bob", open, &session.Config{Local: "alice"})
	if err != nil {
		panic(err)
	}
	return s
}

func Example() {
	mux := session.NewMux() // or a peerlane.Server
	bulk.Handle(mux, "backup", nil, func(l *bulk.Lane) {
		n, err := io.Copy(io.Discard, l)
		fmt.Fprintf(l, "%d bytes, %v", n, err)
	})
	alice := connect(mux)
	defer func() { _ = alice.Close() }()

	l, err := bulk.Open(context.Background(), alice, "backup", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = l.Close() }()
	_, _ = io.Copy(l, strings.NewReader(strings.Repeat("much of it ", 100_000)))
	_ = l.CloseWrite()
	answer, err := io.ReadAll(l)
	fmt.Println(string(answer), err)
	// Output: 1100000 bytes, <nil> <nil>
}

func ExampleOpen() {
	mux := session.NewMux()
	bulk.Handle(mux, "echo", nil, func(l *bulk.Lane) { _, _ = io.Copy(l, l) })
	alice := connect(mux)
	defer func() { _ = alice.Close() }()

	l, err := bulk.Open(context.Background(), alice, "echo", &bulk.Options{Compress: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = l.Close() }()
	go func() {
		_, _ = l.Write(make([]byte, 1<<20))
		_ = l.CloseWrite()
	}()
	n, err := io.Copy(io.Discard, l)
	v := l.Snapshot()
	fmt.Println(n, err, v.Mode, v.Compressed, v.Raw, v.Wire < v.Raw/100)
	// Output: 1048576 <nil> shared true 1048576 true
}

func ExampleHandle() {
	mux := session.NewMux()
	members := func(info bulk.AcceptInfo) (*bulk.Options, error) {
		if info.Session.Peer() != "carol" {
			return nil, bulk.ErrNotTaken
		}
		return &bulk.Options{Rate: 1 << 20}, nil
	}
	bulk.Handle(mux, "backup", members, func(*bulk.Lane) {})
	alice := connect(mux)
	defer func() { _ = alice.Close() }()

	_, err := bulk.Open(context.Background(), alice, "backup", nil)
	fmt.Println(errors.Is(err, bulk.ErrNotTaken), err)
	// Output: true bulk: open "backup": the peer refuses the lane: not accepted
}

func ExampleLane_Abort() {
	mux := session.NewMux()
	ended := make(chan error)
	bulk.Handle(mux, "backup", nil, func(l *bulk.Lane) {
		_, err := io.Copy(io.Discard, l)
		ended <- err
	})
	alice := connect(mux)
	defer func() { _ = alice.Close() }()

	l, err := bulk.Open(context.Background(), alice, "backup", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = l.Abort(codes.TooLarge)
	var e *session.Error
	fmt.Println(errors.As(<-ended, &e), e.Remote, e.Code)
	// Output: true true too large
}

func ExampleRegistry() {
	lanes := new(bulk.Registry)
	mux := session.NewMux()
	bulk.Handle(mux, "backup", nil, func(l *bulk.Lane) { _, _ = io.Copy(io.Discard, l) })
	alice := connect(mux)
	defer func() { _ = alice.Close() }()

	l, err := bulk.Open(context.Background(), alice, "backup", &bulk.Options{Registry: lanes})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _ = l.Write([]byte("hello"))
	for _, v := range lanes.Snapshots() {
		fmt.Println(v.Peer, v.Name, v.Mode, v.Strands, v.Written)
	}
	_ = l.Close()
	fmt.Println(len(lanes.Snapshots()))
	// Output:
	// bob backup shared 1 5
	// 0
}
