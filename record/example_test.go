package record_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

// connect opens a session from alice to bob over a pipe; mux has bob's handlers.
func connect(mux *session.Mux) *session.Session {
	bob, err := session.NewAcceptor(&session.AcceptorConfig{Config: session.Config{Local: "bob", Mux: mux}})
	if err != nil {
		panic(err)
	}
	near, far := net.Pipe()
	go func() { _ = bob.Serve(far, "alice") }()
	s, err := session.Dial(context.Background(), near, "bob", nil, &session.Config{Local: "alice"})
	if err != nil {
		panic(err)
	}
	return s
}

// pair returns both ends of a record stream over a pipe.
func pair() (a, b *record.Stream) {
	near, far := net.Pipe()
	accepted := make(chan *record.Stream)
	go func() {
		s, err := record.AcceptConn(context.Background(), far, nil)
		if err != nil {
			panic(err)
		}
		accepted <- s
	}()
	a, err := record.OpenConn(context.Background(), near, nil)
	if err != nil {
		panic(err)
	}
	return a, <-accepted
}

func Example() {
	ctx := context.Background()
	mux := session.NewMux() // or a peerlane.Server
	record.Handle(mux, "orders", nil, func(s *record.Stream) {
		_ = record.Apply(ctx, s, func(_ context.Context, r record.Record) error {
			fmt.Printf("bob applies %d: %s\n", r.Seq, r.Payload)
			return nil
		}, nil)
	})
	alice := connect(mux)
	defer func() { _ = alice.Close() }()

	orders, err := record.Open(ctx, alice, "orders", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = orders.Close() }()
	for _, order := range []string{"tea", "bread", "butter"} {
		if _, err := orders.WriteRecord(ctx, []byte(order)); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println("all applied:", orders.Barrier(ctx))
	// Output:
	// bob applies 1: tea
	// bob applies 2: bread
	// bob applies 3: butter
	// all applied: <nil>
}

func ExampleHandle() {
	mux := session.NewMux()
	members := func(info record.AcceptInfo) (*record.Options, error) {
		if info.Session.Peer() != "carol" {
			return nil, &record.Error{Code: record.CodeApplication + 1, Text: "members only"}
		}
		return nil, nil
	}
	record.Handle(mux, "orders", members, func(*record.Stream) {})
	alice := connect(mux)
	defer func() { _ = alice.Close() }()

	_, err := record.Open(context.Background(), alice, "orders", nil)
	var e *record.Error
	if errors.As(err, &e) {
		fmt.Println(e.Remote, e.Code, e.Text)
	}
	// Output: true code 257 members only
}

func ExampleOpenConn() {
	near, far := net.Pipe()
	go func() {
		s, err := record.AcceptConn(context.Background(), far, nil)
		if err != nil {
			return
		}
		defer func() { _ = s.Close() }()
		r, err := s.ReadRecord(context.Background())
		fmt.Println(r.Seq, string(r.Payload), err)
		_ = s.AckRecord(r.Seq)
	}()

	s, err := record.OpenConn(context.Background(), near, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = s.Close() }()
	seq, err := s.WriteRecord(context.Background(), []byte("hello"))
	if err == nil {
		err = s.BarrierTo(context.Background(), seq)
	}
	fmt.Println(err)
	// Output:
	// 1 hello <nil>
	// <nil>
}

func ExampleAcceptConn() {
	near, far := net.Pipe()
	go func() {
		_, _ = near.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		_, _ = io.Copy(io.Discard, near) // the refusal
	}()

	_, err := record.AcceptConn(context.Background(), far, &record.Options{MaxRecord: 4 << 10})
	fmt.Println(errors.Is(err, record.ErrProtocol))
	fmt.Println(err)
	// Output:
	// true
	// open: protocol error: this is no record stream: it begins with "GET / HT"
}

func ExampleApply() {
	ctx := context.Background()
	writer, reader := pair()
	over := make(chan error)
	go func() {
		defer func() { over <- reader.Close() }()
		err := record.Apply(ctx, reader, func(_ context.Context, r record.Record) error {
			if string(r.Payload) == "poison" {
				return &record.RecordFailure{Code: 7, Message: "not for eating"}
			}
			fmt.Println("applied:", string(r.Payload))
			return nil
		}, nil)
		var failure *record.RecordFailure
		fmt.Println("the reader gives up:", errors.As(err, &failure))
	}()
	for _, order := range []string{"tea", "poison", "bread"} {
		_, _ = writer.WriteRecord(ctx, []byte(order))
	}
	<-over
	<-writer.Done()
	var failure *record.RecordFailure
	if errors.As(writer.Barrier(ctx), &failure) {
		fmt.Println("the writer learns:", failure.FailedSeq, failure.Code, failure.Message)
	}
	_ = writer.Close()
	// Output:
	// applied: tea
	// the reader gives up: true
	// the writer learns: 2 7 not for eating
}

func ExampleStream_Fail() {
	ctx := context.Background()
	writer, reader := pair()
	defer func() { _, _ = writer.Close(), reader.Close() }()
	for _, item := range []string{"one", "two", "three"} {
		_, _ = writer.WriteRecord(ctx, []byte(item))
	}
	_ = writer.CloseWrite()

	_, _ = reader.ReadRecord(ctx)
	_, _ = reader.ReadRecord(ctx)
	_ = reader.AckRecord(1)
	_ = reader.Fail(2, 100, true, "disk full") // later, perhaps

	fmt.Println(writer.Barrier(ctx))
	_ = writer.Resend()
	for r, err := range reader.Records(ctx) { // those from the failed one on
		fmt.Println(r.Seq, string(r.Payload), err)
		_ = reader.AckRecord(r.Seq)
	}
	fmt.Println(writer.Barrier(ctx))
	// Output:
	// record 2 failed with code 100, and may be sent again: "disk full"
	// 2 two <nil>
	// 3 three <nil>
	// <nil>
}

func ExampleStream_Records() {
	ctx := context.Background()
	writer, reader := pair()
	defer func() { _, _ = writer.Close(), reader.Close() }()
	last, err := writer.WriteBatch(ctx, [][]byte{[]byte("a"), []byte("b"), []byte("c")})
	fmt.Println(last, err)
	_ = writer.CloseWrite()

	for r, err := range reader.Records(ctx) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(r.Seq, string(r.Payload))
	}
	// Output:
	// 3 <nil>
	// 1 a
	// 2 b
	// 3 c
}

func ExampleRegistry() {
	var open record.Registry // for a page of one's own
	ctx := context.Background()
	near, far := net.Pipe()
	go func() {
		s, err := record.AcceptConn(ctx, far, nil)
		if err == nil {
			for range s.Records(ctx) { // reads, and acknowledges nothing
			}
			_ = s.Close()
		}
	}()
	s, err := record.OpenConn(ctx, near, &record.Options{Registry: &open})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _ = s.WriteRecord(ctx, []byte("hello"))
	for _, is := range open.Snapshots() {
		fmt.Println("written", is.Written, "outstanding", is.Outstanding)
	}
	_ = s.Close()
	fmt.Println("open:", len(open.Snapshots()))
	// Output:
	// written 1 outstanding 1
	// open: 0
}
