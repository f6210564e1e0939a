package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/peerlane/peerlane/node"
)

// doctorCmd is the command peerlane doctor.
type doctorCmd struct {
	Helper []string `placeholder:"ADDR" help:"Peer that reports where it sees this machine: a relay, or any libp2p host; may be repeated."`
	Relay  []string `env:"PEERLANE_RELAY" placeholder:"ADDR" help:"Relay to check; it is a helper as well; may be repeated."`
	JSON   bool     `name:"json" help:"Print the report as JSON."`
	Key    string   `placeholder:"FILE" help:"Key file of the identity, for relays that allow only some peers; if none, a new one."`
	Listen []string `placeholder:"ADDR" help:"Multiaddr to listen on, as in the program that others must reach; may be repeated."`
}

// errNoHelper means that no helper has answered.
var errNoHelper = errors.New("no helper answers")

// Run checks the network and prints the report.
func (c *doctorCmd) Run(ctx context.Context, std stdio) (err error) {
	n, err := node.New(ctx, &node.Options{KeyFile: c.Key, ListenAddrs: c.Listen, HolePunch: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	r, err := n.Network(ctx, &node.NetworkOptions{Helpers: c.Helper, Relays: c.Relay})
	if err != nil {
		return err
	}
	if c.JSON {
		out := json.NewEncoder(std.out)
		out.SetIndent("", "  ")
		err = out.Encode(r)
	} else {
		c.print(std, r)
	}
	answered := slices.ContainsFunc(r.Helpers, func(h node.NetworkHelper) bool { return h.RTT > 0 })
	if err == nil && len(r.Helpers) > 0 && !answered {
		err = errNoHelper
	}
	return err
}

// print prints the report as text.
func (c *doctorCmd) print(std stdio, r node.NetworkReport) {
	for _, line := range r.Lines() {
		fmt.Fprintf(std.out, "%-9s%s\n", line.Topic, safe(line.Text))
		if line.Do != "" {
			fmt.Fprintf(std.out, "do       %s\n", safe(line.Do))
		}
	}
	if len(r.Helpers) == 0 {
		fmt.Fprintln(std.out, "do       give --relay or --helper, preferably two: any machine outside this network that runs peerlane relay")
	}
}
