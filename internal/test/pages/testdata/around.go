package page

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/codec/cbor"
	"github.com/peerlane/peerlane/codec/json"
	"github.com/peerlane/peerlane/codec/packet"
	"github.com/peerlane/peerlane/codec/protobuf"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/diagnostics"
	"github.com/peerlane/peerlane/diagnostics/metrics"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/node/dht"
	"github.com/peerlane/peerlane/node/mdns"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/record/boltstore"
	"github.com/peerlane/peerlane/resume"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
	"github.com/peerlane/peerlane/transfer/ticket"
)

const tag = protocol.ID("/tag/1.0.0")

// What the fragments use without declaring it.
var (
	ctx        context.Context
	err        error
	alice, bob *node.Node
	h          host.Host
	pid        peer.ID
	client     *peerlane.Client
	server     *peerlane.Server
	s          *session.Session
	mux        *session.Mux
	tree       *source.Tree
	dial       transfer.Dialer
	conn       net.Conn
	carrier    net.Conn
	ln         net.Listener
	file       *os.File
	stream     *session.Stream
	store      io.Writer
	db         *bbolt.DB

	request, order, secret, prologue, message2, b, buf, piece, data []byte

	ref     transfer.Ref
	pasted  string
	entries []transfer.Entry
	off     int64
	batches <-chan []byte

	sum    func([]byte) ([]byte, error)
	book   func([]byte) error
	save   func(*bbolt.Tx, []byte) error
	decide func(context.Context, transfer.Incoming) (*transfer.Destination, error)
	open   session.Opener

	serve func(*testing.T, host.Host)
	begin func(*testing.T, host.Host, peer.ID) upload
)

// An Order is what a typed call takes.
type Order struct{}

// A Receipt is the answer to a typed call.
type Receipt struct{}

// An upload is what a test of a program waits for.
type upload interface{ Wait() error }

var (
	_ network.Stream
	_ boltstore.Store
	_ ticket.Ticket
	_ frame.Header
	_ codes.Code
	_ psk.Key
	_ record.Record
	_ bulk.Mode
	_ resume.Options
	_ http.Client
	_ cbor.Codec
	_ json.Codec
	_ packet.Codec
	_ protobuf.Codec
	_ structpb.Struct
	_ prometheus.Labels
	_ promhttp.HandlerOpts
	_ metrics.Collector
	_ time.Time
	_ peerlanetest.Link
	_ = errors.New
	_ = fmt.Sprint
	_ = log.Fatal
	_ = synctest.Test
)
