// Package faultnet gives tests networks that break on command: a pipe in memory, and proxies for TCP and UDP on loopback.
//
//	link := faultnet.NewLink(faultnet.LinkOptions{})
//	a, b := link.Ends()
//	link.Cut() // both ends: connection reset by peer
//
//	p := faultnet.TCPProxy(t, server.Addr().String())
//	c, err := net.Dial("tcp", p.Addr())
//	p.Freeze()
//
// What a fault does:
//
//	          bytes on the way     connections      who notices
//	Cut       are lost             are dead         both ends at once on a pipe and over TCP; nobody over UDP
//	Freeze    wait for Thaw        live             nobody
//	Vanish    are lost             are silent       nobody
//
// A Link works inside a bubble of testing/synctest. The proxies use real sockets, do not, and close in t.Cleanup.
package faultnet

import "time"

// A Fault breaks a network and mends it. All of its methods return at once and may be called at any time from any
// goroutine, also after the end of the network.
type Fault interface {
	// Cut ends what is connected now. What connects later works.
	Cut()
	// Freeze stops everything on its way, without loss, until Thaw.
	Freeze()
	// Thaw ends Freeze. What was held goes on in its order.
	Thaw()
	// Vanish(true) loses everything from now on, silently, and Vanish(false) stops losing.
	Vanish(on bool)
	// SetDelay makes what is sent from now on arrive d later. The order stays.
	SetDelay(d time.Duration)
}

var (
	_ Fault = (*TCP)(nil)
	_ Fault = (*UDP)(nil)
)
