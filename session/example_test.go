package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/peerlane/peerlane/session"
)

// connect opens a session from alice to bob over a pipe; mux has bob's handlers.
func connect(mux *session.Mux) *session.Session { return connectFrom(session.NewMux(), mux) }

// connectFrom is connect with handlers of alice's.
func connectFrom(ours, bobs *session.Mux) *session.Session {
	return connectWith(&session.Config{Mux: ours}, bobs, nil)
}

// connectWith is connect with a configuration of alice's and hooks of bob's.
func connectWith(config *session.Config, bobs *session.Mux, hooks *session.Hooks) *session.Session {
	bob, err := session.NewAcceptor(&session.AcceptorConfig{Config: session.Config{Local: "bob", Mux: bobs, Hooks: hooks}})
	if err != nil {
		panic(err)
	}
	open := func(context.Context, session.Want) (net.Conn, error) {
		near, far := net.Pipe()
		go func() { _ = bob.Serve(far, "alice") }()
		return near, nil
	}
	config.Local = "alice"
	conn, _ := open(context.Background(), session.Want{})
	s, err := session.Dial(context.Background(), conn, "bob", open, config)
	if err != nil {
		panic(err)
	}
	return s
}

func ExampleDial() {
	mux := session.NewMux()
	mux.SetCall(func(m *session.Message) ([]byte, error) { return append([]byte("hello, "), m.Value...), nil })
	bob, err := session.NewAcceptor(&session.AcceptorConfig{Config: session.Config{Local: "bob", Mux: mux}})
	if err != nil {
		fmt.Println(err)
		return
	}
	near, far := net.Pipe()
	go func() { _ = bob.Serve(far, "alice") }()

	s, err := session.Dial(context.Background(), near, "bob", nil, &session.Config{Local: "alice"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = s.Close() }()
	reply, err := s.Call(context.Background(), "", []byte("bob"))
	fmt.Println(string(reply), err)
	// Output: hello, bob <nil>
}

func ExampleNewAcceptor() {
	_, err := session.NewAcceptor(&session.AcceptorConfig{Config: session.Config{MaxStreams: -1}})
	fmt.Println(err)
	// Output: session: config: invalid value: MaxStreams is -1, want 1 to 1048576
}

func ExampleSession_Call() {
	mux := session.NewMux()
	mux.SetCall(func(*session.Message) ([]byte, error) { return nil, errors.New("out of stock") })
	s := connect(mux)
	defer func() { _ = s.Close() }()

	_, err := s.Call(context.Background(), "", []byte("one, please"))
	var e *session.Error
	if errors.As(err, &e) {
		fmt.Println(e.Outcome, e.Code, e.Text)
	}
	// Output: delivered application out of stock
}

func ExampleSession_Send() {
	mux := session.NewMux()
	mux.SetLink("log", func(m *session.Message) { fmt.Println(string(m.Value)) })
	s := connect(mux)
	defer func() { _ = s.Close() }()

	for _, line := range []string{"one", "two", "three"} {
		if err := s.Send(context.Background(), "log", []byte(line)); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(s.Flush(context.Background()))
	// Output:
	// one
	// two
	// three
	// <nil>
}

func ExampleSession_Flush() {
	s := connect(session.NewMux())
	defer func() { _ = s.Close() }()

	_ = s.Send(context.Background(), "nobody", nil) // nil: it is on its way
	fmt.Println(errors.Is(s.Flush(context.Background()), session.ErrNotFound))
	// Output: true
}

func ExampleSession_SendWait() {
	mux := session.NewMux()
	mux.SetLink("upper", func(m *session.Message) {
		_ = m.Reply([]byte("GOOD MORNING"))
	})
	s := connect(mux)
	defer func() { _ = s.Close() }()

	reply, err := s.SendWait(context.Background(), "upper", []byte("good morning"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(string(reply.Value))
	// Output: GOOD MORNING
}

func ExampleSession_SendObj() {
	type point struct{ X, Y int }
	mux := session.NewMux()
	mux.SetLink("plot", func(m *session.Message) {
		var p point
		if err := m.Object(&p); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(p.X, p.Y)
	})
	s := connect(mux)
	defer func() { _ = s.Close() }()

	_ = s.SendObj(context.Background(), "plot", "json", point{3, 4})
	_ = s.Flush(context.Background())
	// Output: 3 4
}

func ExampleSession_OpenStream() {
	mux := session.NewMux()
	mux.SetStream("echo", func(st *session.Stream) { _, _ = io.Copy(st, st) })
	s := connect(mux)
	defer func() { _ = s.Close() }()

	st, err := s.OpenStream(context.Background(), "echo", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _ = st.Write([]byte("there and back"))
	_ = st.CloseWrite()
	all, err := io.ReadAll(st)
	fmt.Println(string(all), err)
	// Output: there and back <nil>
}

func ExampleSession_Shutdown() {
	mux := session.NewMux()
	mux.SetLink("log", func(m *session.Message) { fmt.Println(string(m.Value)) })
	s := connect(mux)

	_ = s.Send(context.Background(), "log", []byte("last words"))
	fmt.Println(s.Shutdown(context.Background())) // waits until they have been handled
	// Output:
	// last words
	// <nil>
}

func ExampleMux_Child() {
	base := session.NewMux()
	base.SetLink("ping", func(m *session.Message) { _ = m.Reply([]byte("pong")) })
	mux := base.Child()
	mux.SetLink("name", func(m *session.Message) { _ = m.Reply([]byte("bob")) })
	s := connect(mux)
	defer func() { _ = s.Close() }()

	for _, link := range []string{"ping", "name"} {
		reply, err := s.SendWait(context.Background(), link, nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(string(reply.Value))
	}
	// Output:
	// pong
	// bob
}
