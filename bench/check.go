package main

import (
	"errors"
	"fmt"
	"io"
)

// A floor is a promise: peerlane on a transport makes at least Min times the
// calls per second of another contender under the same load.
type floor struct {
	Name      string    `json:"name"`
	Load      load      `json:"load"`
	Transport transport `json:"transport"` // peerlane's
	Against   string    `json:"against"`
	On        transport `json:"on"` // the other contender's
	Min       float64   `json:"min"`
}

// floors are the promises that -check holds peerlane to. Over QUIC it is held
// to libp2p's own streams only: gRPC, NATS and drpc have no QUIC to compare.
var floors = []floor{
	{"small-alone-raw-tcp", smallAlone, overTCP, rawName, overTCP, 0.90},
	{"small-alone-raw-quic", smallAlone, overQUIC, rawName, overQUIC, 0.90},
	{"small-alone-grpc", smallAlone, overTCP, grpcName, overTCP, 1.5},
	{"small-many-grpc", smallMany, overTCP, grpcName, overTCP, 1.8},
	{"small-many-nats", smallMany, overTCP, natsName, overTCP, 1.5},
	{"large-many-grpc", largeMany, overTCP, grpcName, overTCP, 1.0},
}

// errBelowFloor says that a promise was not kept, or could not be looked at.
var errBelowFloor = errors.New("below the promised floors")

// A verdict is what became of one floor.
type verdict struct {
	floor
	Measured bool  `json:"measured"`
	Got      ratio `json:"got"`
	Met      bool  `json:"met"`
}

// judge returns a verdict for each floor. One that -only left out of the run is
// not met.
func judge(results []result, floors []floor) []verdict {
	verdicts := make([]verdict, len(floors))
	for i, f := range floors {
		v := verdict{floor: f}
		if r := find(results, f.Load, f.Against, f.On); r != nil {
			v.Got, v.Measured = r.Ratios[f.Transport]
		}
		v.Met = v.Measured && v.Got.Median >= f.Min
		verdicts[i] = v
	}
	return verdicts
}

// writeVerdicts writes a line for each verdict and fails with errBelowFloor if
// one is not met.
func writeVerdicts(w io.Writer, verdicts []verdict) error {
	var err error
	for _, v := range verdicts {
		word := "ok  "
		if !v.Met {
			word, err = "FAIL", errBelowFloor
		}
		got := "not measured"
		if v.Measured {
			got = fmt.Sprintf("%.2f (%.2f..%.2f)", v.Got.Median, v.Got.Min, v.Got.Max)
		}
		fmt.Fprintf(w, "%s %-20s  %-11s peerlane %s / %s %s: %s, floor %.2f\n",
			word, v.Name, v.Load, v.Transport, v.Against, v.On, got, v.Min)
	}
	return err
}
