package diagnostics

import (
	"fmt"
	"time"
)

// fakeProcess returns a process with n sessions, tick seconds after it began. Sessions come and go, some are relayed, some look for a path, and
// names are hostile.
func fakeProcess(n, tick int) ProcessSnapshot {
	at := time.Date(2026, 12, 1, 10, 0, tick, 0, time.UTC)
	server := ServerSnapshot{Version: Version, Taken: at, Host: "12D3KooWServerServerServerServer", Tags: []string{"/chat/1.0.0", "/files/1.0.0"},
		Keys: []string{"3f5a77"}}
	for i := range n {
		s := fakeSession(i, tick, at)
		server.Sessions = append(server.Sessions, s)
	}
	server.Limits = []Limit{{Name: "sessions", Used: int64(n), Max: int64(n + n/10 + 1), Warning: true}, {Name: "memory", Used: 40 << 20, Max: 1 << 30, Refused: 3},
		{Name: "calls", Used: int64(tick % 100), Max: 1000}}
	for i := range 8 {
		server.Ended = append(server.Ended, Event{At: at.Add(time.Duration(i-20) * time.Second), Peer: fakePeer(i), Tag: "/chat/1.0.0",
			Session: fmt.Sprintf("ended-%d-%d", tick/5, i), Path: "direct, quic-v1", Why: &Cause{By: ByNetwork, Code: "session lost", Text: "<script>window.hacked=1</script>"}})
		server.Refused = append(server.Refused, Event{At: at.Add(time.Duration(i-40) * time.Second), Peer: fakePeer(i), Tag: "/chat/1.0.0",
			Why: &Cause{By: ByLocal, Code: "psk mismatch", Text: "the peer has another key"}})
	}
	client := ClientSnapshot{Version: Version, Taken: at, Host: server.Host,
		Keepers: []KeeperSnapshot{{Peer: fakePeer(3), Tag: "/chat/1.0.0", Want: 1, Opening: 1, Why: &Cause{By: ByNetwork, Text: "no route"}}}}
	p := ProcessSnapshot{Version: Version, Taken: at, Clients: []ClientSnapshot{client}, Servers: []ServerSnapshot{server},
		Transfers: []TransferSnapshot{{Number: 1, ID: "a", Name: "holiday <img src=x onerror=window.hacked=1>\u202e", Receiving: true, Phase: "running", Files: 200,
			FilesDone: tick % 200, Bytes: 200 << 20, Verified: int64(tick%200) << 20, Rate: 11 << 20, ETA: Duration(time.Minute)}}}
	p.Summary = Summary(client, server)
	p.Summary.Taken, p.Summary.Uptime, p.Summary.Module = at, Duration(time.Duration(tick)*time.Second), "v1.0.0"
	return p
}

func fakePeer(i int) string { return fmt.Sprintf("12D3KooWPeerPeerPeerPeerPeerPeerPeer%06d", i) }

func fakeSession(i, tick int, at time.Time) SessionSnapshot {
	peer := i % 45 // some have several
	if i >= 90 {
		peer = i
	}
	s := SessionSnapshot{ID: fmt.Sprintf("session-%06d-%d", i, (tick+i)/40), Peer: fakePeer(peer), Tag: "/chat/1.0.0", Agent: "<img src=x onerror=window.hacked=1>\u202e\x1b\u2066",
		Started: at.Add(-time.Duration((tick+i)%40) * time.Second), LastActive: at, RTT: Duration(time.Duration(3+i%200) * time.Millisecond), State: "connected",
		StateSince: at.Add(-time.Second), Resumable: true, ReplayWindow: 1 << 20, ReplayUsed: i % 1000, BytesIn: uint64(tick) * uint64(i) * 1000,
		BytesOut: uint64(tick) * uint64(tick%7) * 999, RequestsIn: uint64(tick), InFlightIn: i % 3,
		Path: &PathSnapshot{Text: "direct, quic-v1", Transport: "quic-v1"}}
	s.Carriers = []CarrierSnapshot{{Path: "direct, tcp", Since: s.Started, Until: at, Why: &Cause{By: ByNetwork, Text: "connection reset"}}, {Path: s.Path.Text, Since: at}}
	s.Streams = []StreamSnapshot{{ID: 1, Name: "log", Kind: "shared", State: "open", BytesIn: 10}}
	s.Records = []RecordSnapshot{{ID: 1, Name: "orders", Written: 10, Acked: 8, Outstanding: 2}}
	s.Bulk = []BulkSnapshot{{ID: 1, Name: "files", Mode: "shared", Strands: 1}}
	switch i % 9 {
	case 4:
		s.Path = &PathSnapshot{Text: "relayed by 12D3KooWRelay, limited, tcp", Transport: "tcp", Relayed: true, Relay: "12D3KooWRelayRelayRelay" + fmt.Sprint(i%2),
			Limited: true, RelayData: 128 << 10, RelayLeft: 100 << 10}
	case 7:
		s.State, s.Path = "detached", nil
	}
	return s
}
