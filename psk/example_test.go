package psk_test

import (
	"fmt"
	"io"
	"net"

	"github.com/peerlane/peerlane/psk"
)

// Both sides of one conn: the hello carries the key id and message 1, its answer carries message 2.
func Example() {
	cheap := &psk.Params{Time: 1, MemoryKiB: 8, Threads: 1} // a program leaves the params nil
	key, err := psk.Derive([]byte("correct horse battery staple"), cheap)
	if err != nil {
		fmt.Println(err)
		return
	}
	ring, err := psk.NewKeyring(key)
	if err != nil {
		fmt.Println(err)
		return
	}
	prologue := []byte("hello from alice to bob, version 1")

	alice, err := ring.Initiate(prologue)
	if err != nil {
		fmt.Println(err)
		return
	}
	bob, err := ring.Respond(prologue, alice.KeyID(), alice.Message())
	if err != nil {
		fmt.Println(err)
		return
	}
	message2, bobSecrets, err := bob.Finish([]byte("welcome"))
	if err != nil {
		fmt.Println(err)
		return
	}
	payload, aliceSecrets, err := alice.Finish(message2)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("bob's answer: %s\n", payload)

	one, other := net.Pipe() // the carrier
	go func() {
		conn := psk.Seal(one, aliceSecrets)
		_, _ = conn.Write([]byte("nobody else reads this"))
		_ = conn.Close()
	}()
	text, err := io.ReadAll(psk.Seal(other, bobSecrets))
	fmt.Printf("alice: %s, error: %v\n", text, err)
	// Output:
	// bob's answer: welcome
	// alice: nobody else reads this, error: <nil>
}

// A rotation in three steps; the doc of Keyring says why.
func ExampleKeyring_Rotate() {
	cheap := &psk.Params{Time: 1, MemoryKiB: 8, Threads: 1}
	before, _ := psk.Derive([]byte("the secret of last year"), cheap)
	after, _ := psk.Derive([]byte("the secret of this year"), cheap)

	ring, _ := psk.NewKeyring(before, after)
	fmt.Println("offers the old key, accepts", len(ring.IDs()))
	if err := ring.Rotate(after); err != nil {
		fmt.Println(err)
	}
	fmt.Println("offers the new key, accepts", len(ring.IDs()))
	ring.Retire()
	fmt.Println("offers the new key, accepts", len(ring.IDs()))
	// Output:
	// offers the old key, accepts 2
	// offers the new key, accepts 2
	// offers the new key, accepts 1
}
