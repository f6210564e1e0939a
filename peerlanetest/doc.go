// Package peerlanetest gives tests pairs of peers in memory, over networks that break on command.
//
//	func TestACallSurvivesACut(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) { // no wait takes real time
//			p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: 20 * time.Millisecond})
//			p.ToBob.SetCall(func(m *session.Message) ([]byte, error) { return m.Value, nil })
//			p.CutAfter(20) // in the middle of the request
//			answer, err := p.Alice.Call(t.Context(), "", make([]byte, 1000))
//			if err != nil || len(answer) != 1000 {
//				t.Fatal(len(answer), err)
//			}
//		})
//	}
//
// NewSessions is for programs on the packages session, record, bulk and transfer: two sides of a session, without libp2p. NewHosts is for
// programs on the package peerlane, and others on libp2p: two hosts, if asked for with a relay between them.
//
//	func TestACallSurvivesARestartOfTheRelay(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Relayed: true, Delay: 20 * time.Millisecond})
//			server, err := peerlane.NewServer(h.Bob, nil)
//			if err != nil {
//				t.Fatal(err)
//			}
//			defer server.Stop()
//			if err := server.Start(tag, func(request []byte) ([]byte, error) { return request, nil }); err != nil {
//				t.Fatal(err)
//			}
//			config := peerlane.DefaultClientConfig()
//			config.Path = peerlane.AllowRelay
//			client, err := peerlane.NewClient(h.Alice, config)
//			if err != nil {
//				t.Fatal(err)
//			}
//			defer client.Close()
//			for range 3 {
//				if _, err := client.Send(t.Context(), h.Bob.ID(), tag, []byte("hello")); err != nil {
//					t.Fatal(err)
//				}
//				h.Relay.Restart()
//			}
//		})
//	}
//
// NewNetwork has further hosts at addresses of choice, and NewLink a pair of net.Conns.
//
// The faults are methods of Link, Sessions, Network and Hosts. Cut ends connections, which both sides notice at once; others can be opened.
// CutAfter does so after a number of bytes. Freeze holds what is on its way, until Thaw: only timeouts notice. Vanish loses it without an
// error: only heartbeats and timeouts notice. VanishBetween does so between two hosts, so that only the way over a relay is left. SetDelay
// changes the delay. All return at once.
//
// Everything works inside a bubble of testing/synctest, where time is virtual, and outside, in real time. Everything is closed in
// t.Cleanup: clients and servers of a test have to be closed before, by a defer or a later t.Cleanup.
package peerlanetest
