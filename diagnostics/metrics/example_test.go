package metrics_test

import (
	"fmt"

	"github.com/libp2p/go-libp2p"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/diagnostics/metrics"
)

// A Collector is registered once, and shows the clients and servers that it has at the time of a scrape.
func ExampleNew() {
	host, err := libp2p.New(libp2p.NoListenAddrs)
	if err != nil {
		panic(err)
	}
	defer host.Close()
	server, err := peerlane.NewServer(host, nil)
	if err != nil {
		panic(err)
	}
	defer server.Stop()
	if err := server.Start("/greet/1.0.0", func(request []byte) ([]byte, error) { return request, nil }); err != nil {
		panic(err)
	}

	registry := prometheus.NewRegistry()
	collector := metrics.New()
	registry.MustRegister(collector)
	collector.AddServer(server)
	families, err := registry.Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		if f.GetName() == "peerlane_calls_total" {
			for _, m := range f.GetMetric() {
				fmt.Println(f.GetName(), m.GetLabel()[0].GetValue(), m.GetCounter().GetValue())
			}
		}
	}
	// Output:
	// peerlane_calls_total in 0
	// peerlane_calls_total out 0
}
