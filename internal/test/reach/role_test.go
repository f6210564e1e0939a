//go:build linux

package reach

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/session"
)

// The test program runs again on hosts of the lab, as one of two peers that talk over one session until they are killed.
const (
	roleEnv  = "PEERLANE_REACH_ROLE"
	relayEnv = "PEERLANE_REACH_RELAY" // the relays, with spaces between, and commas between the addresses of one
	peerEnv  = "PEERLANE_REACH_PEER"  // the listener's addresses, for the talker
	bytesEnv = "PEERLANE_REACH_BYTES" // how many bytes the talker sends on a stream, beside its calls

	messagesEnv = "PEERLANE_REACH_MESSAGES" // how many messages the talker sends as fast as they go
	atOnceEnv   = "PEERLANE_REACH_AT_ONCE"  // "true": the talker does not wait for a direct path
	timeoutEnv  = "PEERLANE_REACH_TIMEOUT"  // the talker's ConnectTimeout

	roleTalk   = "talk"
	roleListen = "listen"
	roleStock  = "stock" // a relay of libp2p alone
	roleUPnP   = "upnp"  // a router's UPnP
)

const talkTag = "/reach/1.0.0"

// play plays a role.
func play(role string) error {
	switch role {
	case roleStock:
		return playStock()
	case roleUPnP:
		return playUPnP(os.Getenv(outsideEnv))
	}
	n, err := node.New(context.Background(), &node.Options{HolePunch: true, Relays: strings.Fields(os.Getenv(relayEnv))})
	if err != nil {
		return err
	}
	reserved(n)
	if role == roleListen {
		return listen(n)
	}
	return talk(n, os.Getenv(peerEnv))
}

// reserved waits until the node has a reservation at each of its relays, and goes on to say at how many it has one.
func reserved(n *node.Node) {
	had := -1
	look := func() bool {
		all := n.Reservations()
		have := 0
		for _, r := range all {
			if r.Addrs != nil {
				have++
			}
		}
		if have != had {
			fmt.Printf("reserved at %d of %d\n", have, len(all))
		}
		had = have
		return have == len(all)
	}
	for !look() {
		time.Sleep(lookEvery)
	}
	go func() { // as long as the program
		for {
			look()
			time.Sleep(lookEvery)
		}
	}()
}

// lookEvery is the time between two looks at reservations.
const lookEvery = 50 * time.Millisecond

// listen answers calls and messages, and reports messages that are lost, repeated or reordered.
func listen(n *node.Node) error {
	cfg := peerlane.DefaultServerConfig()
	cfg.AdmitAll, cfg.OnState = true, says
	server, err := peerlane.NewServer(n.Host(), cfg)
	if err != nil {
		return err
	}
	var next atomic.Uint64
	server.SetLink("count", func(m *session.Message) {
		got := binary.BigEndian.Uint64(m.Value)
		if want := next.Add(1); got != want {
			fmt.Printf("WRONG: message %d, want %d\n", got, want)
		}
	})
	var last atomic.Uint64
	server.SetLink("many", func(m *session.Message) {
		got, all := binary.BigEndian.Uint64(m.Value), binary.BigEndian.Uint64(m.Value[8:])
		if want := last.Add(1); got != want {
			fmt.Printf("WRONG: message %d of many, want %d\n", got, want)
		}
		if got == all {
			fmt.Printf("got %d messages\n", all)
		}
	})
	server.SetStream("pour", digest)
	if err := server.Start(talkTag, func(request []byte) ([]byte, error) { return request, nil }); err != nil {
		return err
	}
	fmt.Printf("peer %s\n", n.ID())
	select {}
}

// digest reads a stream to its end, and answers with what it has read: its SHA-256.
func digest(st *session.Stream) {
	h := sha256.New()
	if _, err := io.Copy(h, st); err != nil {
		fmt.Printf("WRONG: %v\n", err)
	}
	if _, err := st.Write(h.Sum(nil)); err != nil {
		fmt.Printf("WRONG: %v\n", err)
	}
	_ = st.Close() // Write has told
}

// pour sends so many bytes on a stream, and says how long it took until the other side had them all.
func pour(s *session.Session, n int64) {
	began := time.Now()
	if err := pourInto(s, n); err != nil {
		fmt.Printf("poured nothing: %v\n", err)
		return
	}
	took := time.Since(began)
	fmt.Printf("poured %d bytes in %.1f s: %.0f KB/s\n", n, took.Seconds(), float64(n)/1000/took.Seconds())
}

func pourInto(s *session.Session, n int64) error {
	st, err := s.OpenStream(context.Background(), "pour", nil)
	if err != nil {
		return err
	}
	h := sha256.New()
	source := io.LimitReader(rand.NewChaCha8([32]byte{}), n)
	if _, err := io.Copy(st, io.TeeReader(source, h)); err != nil {
		return err
	}
	if err := st.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(st)
	switch {
	case err != nil:
		return err
	case !bytes.Equal(got, h.Sum(nil)):
		return fmt.Errorf("the other side has got something else: %x", got)
	}
	return st.Close()
}

// many sends so many messages, and says when all have arrived.
func many(s *session.Session, all uint64) {
	for i := range all {
		value := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, i+1), all)
		if err := s.Send(context.Background(), "many", value); err != nil {
			fmt.Printf("sent %d messages: %v\n", i, err)
			return
		}
	}
	fmt.Printf("sent %d messages: %v\n", all, s.Flush(context.Background()))
}

// callEvery is the time between two calls.
const callEvery = 50 * time.Millisecond

// talk opens a session and uses it, and says how long each call took that took long.
func talk(n *node.Node, addr string) error {
	info, err := node.ParsePeer(addr)
	if err != nil {
		return err
	}
	n.Remember(info)
	cfg := peerlane.DefaultClientConfig()
	cfg.AdmitAll, cfg.OnState, cfg.Path = true, says, peerlane.PreferDirect
	if os.Getenv(atOnceEnv) == "true" {
		cfg.Path = peerlane.AllowRelay
	}
	if cfg.ConnectTimeout, err = time.ParseDuration(os.Getenv(timeoutEnv)); err != nil {
		return err
	}
	client, err := peerlane.NewClient(n.Host(), cfg)
	if err != nil {
		return err
	}
	s := connect(client, info.ID)
	fmt.Printf("session %s\n", s.ID())
	if err := burden(s); err != nil {
		return err
	}
	for i := uint64(1); s.Err() == nil; i++ {
		value := binary.BigEndian.AppendUint64(nil, i)
		if err := s.Send(context.Background(), "count", value); err != nil {
			return err
		}
		began := time.Now()
		if _, err := s.Call(context.Background(), "", value); err != nil {
			return err
		}
		if took := time.Since(began); took > time.Second {
			fmt.Printf("call %d took %.1f s\n", i, took.Seconds())
		}
		fmt.Printf("%d calls, %s\n", i, peerlane.PathOf(s))
		time.Sleep(callEvery)
	}
	return errors.New("the session has ended")
}

// burden begins what goes over a session beside its calls, until the program ends.
func burden(s *session.Session) error {
	size, err := strconv.ParseInt(os.Getenv(bytesEnv), 10, 64)
	if err != nil {
		return err
	}
	count, err := strconv.ParseUint(os.Getenv(messagesEnv), 10, 64)
	if err != nil {
		return err
	}
	if size > 0 {
		go pour(s, size)
	}
	if count > 0 {
		go many(s, count)
	}
	return nil
}

// connect tries until it has a session: over a bad link the time for one attempt may not be enough.
func connect(client *peerlane.Client, pid peer.ID) *session.Session {
	for {
		s, err := client.Connect(context.Background(), pid, talkTag)
		if err == nil {
			return s
		}
		fmt.Println(err)
		time.Sleep(callEvery)
	}
}

// says prints the steps of a session.
func says(s *session.Session, change session.StateChange) {
	fmt.Printf("state %v: %v\n", change.State, peerlane.PathOf(s))
}
