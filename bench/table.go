package main

import (
	"fmt"
	"io"
	"time"
)

// The line formats of the table: names to the left, figures to the right.
const (
	headFormat = "%-11s  %-15s  %-4s %9s %9s %9s %8s %9s   %-18s  %s\n"
	rowFormat  = "%-11s  %-15s  %-4s %9.0f %9s %9s %8.1f %9.0f   %-18s  %s\n"
)

// writeTable writes results as one table, a block for each load.
func writeTable(w io.Writer, results []result) error {
	_, err := fmt.Fprintf(w, headFormat, "load", "contender", "over", "calls/s", "p50", "p99",
		"allocs", "B", "peerlane tcp /", "peerlane quic /")
	for i, r := range results {
		if err != nil {
			return err
		}
		if i == 0 || r.Load != results[i-1].Load {
			fmt.Fprintln(w)
		}
		m := r.Median
		_, err = fmt.Fprintf(w, rowFormat, r.Load, r.Contender, r.Transport, m.CallsPerSec, micros(m.P50), micros(m.P99),
			m.AllocsPerCall, m.BytesPerCall, ratioText(r, overTCP), ratioText(r, overQUIC))
	}
	return err
}

// micros returns d in microseconds, with one decimal below 100.
func micros(d time.Duration) string {
	us := float64(d) / float64(time.Microsecond)
	if us < 100 {
		return fmt.Sprintf("%.1f us", us)
	}
	return fmt.Sprintf("%.0f us", us)
}

// ratioText returns how much faster peerlane over t was than r, with the range
// over the rounds, or a dash if they are not compared.
func ratioText(r result, t transport) string {
	ratio, ok := r.Ratios[t]
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f..%.2f)", ratio.Median, ratio.Min, ratio.Max)
}
