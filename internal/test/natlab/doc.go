// Package natlab gives tests a network of hosts behind NATs. Each host is a network namespace of Linux, in which real programs run; the
// network between them is this package: links with delay, loss and rate, routers with the NATs of package internal/nat, and the
// internet.
//
//	lab := natlab.New(t)
//	relay := lab.Host(lab.Internet)
//	home := lab.Router(lab.Internet, natlab.Home(nat.Easy))
//	alice := lab.Host(home.LAN)
//	out, err := alice.Output(t.Context(), "peerlane", "ping", ...)
//
// It needs no root and no program but the one under test: Main runs the tests in a user namespace, interfaces are TUN devices, and
// packets are forwarded and translated by goroutines of the test. Where the kernel does not allow that, tests are skipped with the
// reason, and fail when -natlab is given, as in CI.
package natlab
