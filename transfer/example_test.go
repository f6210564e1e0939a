package transfer_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
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

// twoFolders returns one with two files in it, and an empty one; remove removes both.
func twoFolders() (from, to string, remove func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	from, to = filepath.Join(dir, "photos"), filepath.Join(dir, "downloads")
	_ = os.Mkdir(from, 0o755)
	_ = os.Mkdir(to, 0o755)
	_ = os.WriteFile(filepath.Join(from, "one"), make([]byte, 1_000_000), 0o644)
	_ = os.WriteFile(filepath.Join(from, "two"), []byte("two"), 0o644)
	return from, to, func() { _ = os.RemoveAll(dir) }
}

func ExamplePush() {
	from, to, remove := twoFolders()
	defer remove()

	bob, err := transfer.NewService(&transfer.ServiceConfig{
		Receive: func(_ context.Context, in transfer.Incoming) (*transfer.Destination, error) {
			fmt.Printf("%s pushes %q: %d files, %d bytes\n", in.Peer, in.Name, in.Files, in.Bytes)
			return &transfer.Destination{Dir: to}, nil
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = bob.Close() }()
	mux := session.NewMux() // or a peerlane.Server
	bob.Handle(mux)
	alice := connect(mux)
	defer func() { _ = alice.Close() }()

	tree, err := source.Walk(context.Background(), []string{from}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = tree.Close() }()
	dial := func(context.Context) (*session.Session, error) { return alice, nil } // or Client.Connect
	result, err := transfer.Push(context.Background(), dial, tree, nil).Wait()
	fmt.Println(result.Progress.FilesDone, "files,", result.Progress.Durable, "bytes are on bob's disk,", err)
	// Output:
	// alice pushes "photos": 2 files, 1000003 bytes
	// 2 files, 1000003 bytes are on bob's disk, <nil>
}

func ExampleFetch() {
	from, to, remove := twoFolders()
	defer remove()

	bob, err := transfer.NewService(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = bob.Close() }()
	mux := session.NewMux()
	bob.Handle(mux)
	tree, err := source.Walk(context.Background(), []string{from}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = tree.Close() }()
	_ = tree.Hash(context.Background(), nil) // so that the Ref pins the content
	share, err := bob.Share(tree, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	alice := connect(mux)
	defer func() { _ = alice.Close() }()

	dial := func(context.Context) (*session.Session, error) { return alice, nil }
	for range 2 {
		t := transfer.Fetch(context.Background(), []transfer.Dialer{dial}, share.Ref(), to, nil)
		for range t.Watch(context.Background(), time.Second) { // or show a bar
		}
		result, err := t.Wait()
		fmt.Printf("%q: %d files, %d of %d bytes were there already, %v\n",
			result.Name, result.Progress.FilesDone, result.Progress.Resumed, result.Progress.Bytes, err)
	}
	// Output:
	// "photos": 2 files, 0 of 1000003 bytes were there already, <nil>
	// "photos": 2 files, 1000003 of 1000003 bytes were there already, <nil>
}
