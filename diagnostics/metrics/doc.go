// Package metrics shows clients and servers to Prometheus.
//
//	collector := metrics.New()
//	collector.AddServer(server)
//	collector.AddClient(client)
//	prometheus.MustRegister(collector)
//	http.Handle("/metrics", promhttp.Handler())
//
// docs/DIAGNOSTICS.md has a table of all metrics, and docs/grafana.json a dashboard.
//
// # Cost
//
// Gauges and counters are read from snapshots at each scrape, as package diagnostics does, which stops no traffic. Histograms are filled while
// the traffic runs, for clients and servers that have been added. Others measure nothing.
//
// # Cardinality
//
// No label names a peer, a session or a stream. The label tag has at most MaxTags values, in the order in which they come, and "other" for
// the tags beyond. All other labels have a fixed set of values.
package metrics
