package peerlanetest_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

const tag protocol.ID = "/test/1.0.0"

func ExampleNewLink() {
	link := peerlanetest.NewLink(nil)
	a, b := link.Ends()
	link.CutAfter(5)
	n, err := a.Write([]byte("hello, world"))
	fmt.Println(n, errors.Is(err, syscall.ECONNRESET))
	_, err = b.Read(make([]byte, 10))
	fmt.Println(errors.Is(err, syscall.ECONNRESET))
	// Output:
	// 5 true
	// true
}

// The test functions of the package comment.

func TestACallSurvivesACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no wait takes real time
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: 20 * time.Millisecond})
		p.ToBob.SetCall(func(m *session.Message) ([]byte, error) { return m.Value, nil })
		p.CutAfter(20) // in the middle of the request
		answer, err := p.Alice.Call(t.Context(), "", make([]byte, 1000))
		if err != nil || len(answer) != 1000 {
			t.Fatal(len(answer), err)
		}
		if n := p.Alice.Snapshot().Resumes; n != 1 {
			t.Fatal(n)
		}
	})
}

func TestACallSurvivesARestartOfTheRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Relayed: true, Delay: 20 * time.Millisecond})
		server, err := peerlane.NewServer(h.Bob, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Stop()
		if err := server.Start(tag, func(request []byte) ([]byte, error) { return request, nil }); err != nil {
			t.Fatal(err)
		}
		config := peerlane.DefaultClientConfig()
		config.Path = peerlane.AllowRelay
		client, err := peerlane.NewClient(h.Alice, config)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		for range 3 {
			if _, err := client.Send(t.Context(), h.Bob.ID(), tag, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			h.Relay.Restart()
		}
	})
}
