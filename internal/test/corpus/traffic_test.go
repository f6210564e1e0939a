package corpus

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

// A tap keeps what is written to an end of a link.
type tap struct {
	*faultnet.Conn
	mu  sync.Mutex
	out bytes.Buffer
}

func (c *tap) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.Write(p)
	return c.Conn.Write(p)
}

// said returns what has been written so far.
func (c *tap) said() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.out.Bytes())
}

// A carrier is what both sides have said on a link: the one that has dialed, and the other.
type carrier [2][]byte

// carriersOf returns what two sides say while talk runs.
func carriersOf(t *testing.T, cfg session.Config, talk func(t *testing.T, p *peerlanetest.Sessions)) (all []carrier) {
	var mu sync.Mutex
	var taps [][2]*tap
	p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: cfg, Wrap: func(here, there net.Conn) (net.Conn, net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		pair := [2]*tap{{Conn: here.(*faultnet.Conn)}, {Conn: there.(*faultnet.Conn)}}
		taps = append(taps, pair)
		return pair[0], pair[1]
	}})
	talk(t, p)
	require.NoError(t, p.Alice.Close())
	<-p.Bob.Done()
	for _, pair := range taps {
		all = append(all, carrier{pair[0].said(), pair[1].said()})
	}
	return all
}

const patience = time.Minute

// talkOfAll uses all that ends with its carrier.
func talkOfAll(t *testing.T, p *peerlanetest.Sessions) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := p.Alice
	p.ToBob.SetLink("echo", func(m *session.Message) { _ = m.Reply(m.Value) }) // whose caller knows when it fails
	p.ToBob.SetStream("echo", func(st *session.Stream) { _, _ = io.Copy(st, st) })
	for _, body := range [][]byte{nil, []byte("hello"), bytes.Repeat([]byte("much of a muchness "), 60)} {
		_, err := s.Call(ctx, "echo", body)
		require.NoError(t, err)
		require.NoError(t, s.Send(ctx, "echo", body))
	}
	_, err := s.Call(ctx, "nobody", nil)
	require.ErrorIs(t, err, session.ErrNotFound)
	require.NoError(t, s.Flush(ctx))
	_, err = s.OpenStream(ctx, "nobody", nil)
	require.ErrorIs(t, err, session.ErrNotFound)
	st, err := s.OpenStream(ctx, "echo", nil)
	require.NoError(t, err)
	echoed(t, st)
	records(ctx, t, p)
	bulk.Handle(p.ToBob, "bulk", nil, func(l *bulk.Lane) { _, _ = io.Copy(l, l) })
	for _, opts := range []*bulk.Options{{Compress: true}, {Mode: bulk.Dedicated, Strands: 3, Compress: true}} {
		l, err := bulk.Open(ctx, s, "bulk", opts)
		require.NoError(t, err)
		echoed(t, l)
	}
	files(ctx, t, p)
}

// A lane is a stream, or a bulk lane.
type lane interface {
	io.ReadWriteCloser
	CloseWrite() error
}

func echoed(t *testing.T, l lane) {
	body := bytes.Repeat([]byte("to and fro "), 40)
	_, err := l.Write(body)
	require.NoError(t, err)
	require.NoError(t, l.CloseWrite())
	got, err := io.ReadAll(l)
	require.NoError(t, err)
	require.Equal(t, body, got)
	require.NoError(t, l.Close())
}

func records(ctx context.Context, t *testing.T, p *peerlanetest.Sessions) {
	record.Handle(p.ToBob, "records", nil, func(r *record.Stream) {
		_ = record.Apply(context.Background(), r, func(context.Context, record.Record) error { return nil }, nil)
	})
	r, err := record.Open(ctx, p.Alice, "records", nil)
	require.NoError(t, err)
	for _, text := range []string{"one", "", "three of them"} {
		_, err := r.WriteRecord(ctx, []byte(text))
		require.NoError(t, err)
	}
	require.NoError(t, r.Barrier(ctx))
	require.NoError(t, r.Close())
}

// files fetches a tree that was hashed, and pushes one that was not.
func files(ctx context.Context, t *testing.T, p *peerlanetest.Sessions) {
	root := filepath.Join(t.TempDir(), "tree")
	require.NoError(t, os.MkdirAll(filepath.Join(root, "folder"), 0o755))
	for name, size := range map[string]int{"small": 30, "empty": 0, "folder/other": 100, "zeros": 600_000} {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), make([]byte, size), 0o600))
	}
	to := t.TempDir()
	service, err := transfer.NewService(&transfer.ServiceConfig{
		Receive: func(context.Context, transfer.Incoming) (*transfer.Destination, error) {
			return &transfer.Destination{Dir: to}, nil
		},
	})
	require.NoError(t, err)
	service.Handle(p.ToBob)
	dial := func(context.Context) (*session.Session, error) { return p.Alice, nil }
	pushed, err := source.Walk(ctx, []string{root}, nil)
	require.NoError(t, err)
	_, err = transfer.Push(ctx, dial, pushed, nil).Wait()
	require.NoError(t, err)
	require.NoError(t, pushed.Close())
	hashed, err := source.Walk(ctx, []string{root}, nil)
	require.NoError(t, err)
	require.NoError(t, hashed.Hash(ctx, nil))
	share, err := service.Share(hashed, nil)
	require.NoError(t, err)
	_, err = transfer.Fetch(ctx, []transfer.Dialer{dial}, share.Ref(), t.TempDir(), nil).Wait()
	require.NoError(t, err)
	share.Close()
	require.NoError(t, hashed.Close())
	require.NoError(t, service.Close())
}

// talkOverCuts uses a session and a stream that outlive their carriers.
func talkOverCuts(t *testing.T, p *peerlanetest.Sessions) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	p.ToBob.SetLink("echo", func(m *session.Message) { _ = m.Reply(m.Value) }) // whose caller knows when it fails
	p.ToBob.SetStream("echo", func(st *session.Stream) { _, _ = io.Copy(st, st) })
	st, err := p.Alice.OpenStream(ctx, "echo", &session.StreamOptions{Dedicated: true, Resumable: true})
	require.NoError(t, err)
	for _, end := range []func(){func() {}, p.Cut, func() { require.NoError(t, p.Alice.Reconnect(ctx)) }} {
		end()
		_, err := p.Alice.Call(ctx, "echo", []byte("still here?"))
		require.NoError(t, err)
		_, err = st.Write([]byte("and you?"))
		require.NoError(t, err)
		_, err = io.ReadFull(st, make([]byte, 8))
		require.NoError(t, err)
	}
	if err := st.Close(); err != nil { // the last acknowledgement may have been on the connection that was left
		var e *session.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, session.Unknown, e.Outcome)
	}
}
