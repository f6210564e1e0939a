package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/diagnostics"
	"github.com/peerlane/peerlane/diagnostics/metrics"
	"github.com/peerlane/peerlane/internal/admin"
)

// monitorFlags control how a long-running command can be watched.
type monitorFlags struct {
	Dashboard dashboardFlag `help:"Show what the command does on a page for browsers, on this machine, or with --dashboard=ADDR on another address and port, as in --dashboard=0.0.0.0:8080."`
	Admin     bool          `default:"true" negatable:"" help:"Let this user's peerlane status, snapshot and top see what the command does."`
}

// dashboardFlag is --dashboard or --dashboard=ADDR.
type dashboardFlag struct{ addr string }

// IsBool tells kong that the flag needs no value.
func (f *dashboardFlag) IsBool() bool { return true }

// Decode parses a value, if there is one.
func (f *dashboardFlag) Decode(ctx *kong.DecodeContext) error {
	f.addr = "127.0.0.1:0"
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		return nil
	}
	f.addr = ctx.Scan.Pop().String()
	_, port, err := net.SplitHostPort(f.addr)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return fmt.Errorf("--dashboard=ADDR: want an address and a port, as in 127.0.0.1:8080: %w", err)
	}
	return nil
}

// A monitor serves snapshots of a command until it is closed.
type monitor struct {
	servers []*http.Server
	ends    []func() error // of their handlers
	served  sync.WaitGroup // the goroutines of servers
}

// servedBy returns a function that returns servers as sources.
func servedBy(servers ...*peerlane.Server) func() diagnostics.Sources {
	return func() diagnostics.Sources { return diagnostics.Sources{Servers: servers} }
}

// monitor begins to show sources, as name. It prints the address of the page, if there is one. Without a socket for status the command runs on.
func (f *monitorFlags) monitor(std stdio, name string, sources func() diagnostics.Sources) (*monitor, error) {
	m := new(monitor)
	figures, err := metricsOf(sources())
	if err != nil {
		return nil, err
	}
	if f.Admin {
		if l, err := admin.Listen(admin.Folder(), name); err != nil {
			fmt.Fprintf(std.err, "warning  peerlane status cannot see this process: %v\n", err)
		} else if err := m.serve(l, sources, &diagnostics.HandlerOptions{Profiles: true, Metrics: figures}); err != nil {
			m.close()
			return nil, err
		}
	}
	if f.Dashboard.addr == "" {
		return m, nil
	}
	l, err := net.Listen("tcp", f.Dashboard.addr)
	if err != nil {
		m.close()
		return nil, fmt.Errorf("--dashboard=%s: %w", f.Dashboard.addr, err)
	}
	o, url := pageOf(l.Addr())
	o.Metrics = figures
	if err := m.serve(l, sources, o); err != nil {
		m.close()
		return nil, err
	}
	fmt.Fprintf(std.out, "page     %s\n", url)
	return m, nil
}

// metricsOf returns a handler for Prometheus. It has the clients and servers that are in sources now, and the Go runtime.
func metricsOf(sources diagnostics.Sources) (http.Handler, error) {
	collector := metrics.New()
	for _, c := range sources.Clients {
		collector.AddClient(c)
	}
	for _, s := range sources.Servers {
		collector.AddServer(s)
	}
	registry := prometheus.NewRegistry()
	if err := errors.Join(registry.Register(collector), registry.Register(collectors.NewGoCollector())); err != nil {
		return nil, err
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), nil
}

// pageOf returns the options of the page at an address, and what opens it: with a token, because every user of this machine can connect to it.
func pageOf(at net.Addr) (*diagnostics.HandlerOptions, string) {
	addr, err := netip.ParseAddrPort(at.String())
	token := rand.Text()
	if err == nil && addr.Addr().IsUnspecified() {
		if outside, ok := outsideAddr(); ok {
			addr = netip.AddrPortFrom(outside, addr.Port())
		}
	}
	return &diagnostics.HandlerOptions{Token: token}, "http://" + addr.String() + "/#token=" + token
}

// outsideAddr returns an address at which other machines may know this one, IPv4 if it has such.
func outsideAddr() (found netip.Addr, ok bool) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, false
	}
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil || !prefix.Addr().IsGlobalUnicast() {
			continue
		}
		if prefix.Addr().Is4() {
			return prefix.Addr(), true
		}
		found, ok = prefix.Addr(), true
	}
	return found, ok
}

// The bounds of requests to a monitor. What it sends is bounded by diagnostics.Handler.
const (
	headTime = 10 * time.Second
	idleTime = time.Minute
	lastTime = time.Second / 4 // for answers in progress when the command ends
	maxConns = 64              // open at once: more wait to be accepted, and cost the process no memory
)

// serve serves a handler for sources on l.
func (m *monitor) serve(l net.Listener, sources func() diagnostics.Sources, o *diagnostics.HandlerOptions) error {
	h, err := diagnostics.NewHandler(sources, o)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: headTime, ReadTimeout: headTime, IdleTimeout: idleTime, MaxHeaderBytes: 16 << 10}
	m.servers, m.ends = append(m.servers, s), append(m.ends, h.Close)
	m.served.Go(func() { // ends with the server
		_ = s.Serve(netutil.LimitListener(l, maxConns)) // http.ErrServerClosed; the command keeps running if the listener fails
	})
	return nil
}

// close stops the servers. It gives answers in progress a moment, which passes if a browser has a connection that it has not used yet.
func (m *monitor) close() {
	ctx, cancel := context.WithTimeout(context.Background(), lastTime)
	defer cancel()
	for i, s := range m.servers {
		_ = m.ends[i]() // returns nil
		if s.Shutdown(ctx) != nil {
			_ = s.Close() // cuts off an answer that is not taken
		}
	}
	m.served.Wait()
}
