//go:build linux

package reach

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/session"
)

// The test program runs again on hosts of the lab, as one of two peers that talk over one session until they are killed.
const (
	roleEnv  = "PEERLANE_REACH_ROLE"
	relayEnv = "PEERLANE_REACH_RELAY" // the relays' addresses
	peerEnv  = "PEERLANE_REACH_PEER"  // the listener's address, for the talker

	roleTalk   = "talk"
	roleListen = "listen"
)

const talkTag = "/reach/1.0.0"

// play plays a role.
func play(role string) error {
	o := &node.Options{HolePunch: true}
	if relay := os.Getenv(relayEnv); relay != "" {
		o.Relays = []string{relay}
	}
	n, err := node.New(context.Background(), o)
	if err != nil {
		return err
	}
	if role == roleListen {
		if _, err := n.AwaitReservation(context.Background()); err != nil {
			return err
		}
		return listen(n)
	}
	return talk(n, os.Getenv(peerEnv))
}

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
	if err := server.Start(talkTag, func(request []byte) ([]byte, error) { return request, nil }); err != nil {
		return err
	}
	fmt.Printf("peer %s\n", n.ID())
	select {}
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
	client, err := peerlane.NewClient(n.Host(), cfg)
	if err != nil {
		return err
	}
	s, err := client.Connect(context.Background(), info.ID, talkTag)
	if err != nil {
		return err
	}
	fmt.Printf("session %s\n", s.ID())
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
		if i%4 == 0 {
			fmt.Printf("%d calls, %s\n", i, peerlane.PathOf(s))
		}
		time.Sleep(callEvery)
	}
	return errors.New("the session has ended")
}

// says prints the steps of a session.
func says(s *session.Session, change session.StateChange) {
	fmt.Printf("state %v: %v\n", change.State, peerlane.PathOf(s))
}
