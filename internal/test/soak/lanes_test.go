package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

// errGarbled is no loss.
var errGarbled = errors.New("what came back is not what was sent")

func echo(_ context.Context, r *peerlane.Request) ([]byte, error) { return r.Value, nil }

// some returns bytes, a few or many.
func some(d *rand.Rand, most int) []byte {
	b := make([]byte, d.IntN(most))
	for i := range b {
		b[i] = byte(i * 7 >> (i >> 10 & 3))
	}
	return b
}

// serve sets the handlers of both sides, and the lanes.
func (p *pair) serve() {
	p.server.SetLink("echo", func(m *session.Message) { _ = m.Reply(m.Value) }) // whose caller knows when it fails
	p.server.SetLink("one-way", func(*session.Message) {})
	p.server.SetStream("echo", func(st *session.Stream) { _, _ = io.Copy(st, st) }) // likewise
	bulk.Handle(p.server, "bulk", nil, func(l *bulk.Lane) { _, _ = io.Copy(l, l) })
	record.Handle(p.server, "records", nil, p.takeRecords)
	dir := p.t.TempDir()
	service, err := transfer.NewService(&transfer.ServiceConfig{
		Receive: func(context.Context, transfer.Incoming) (*transfer.Destination, error) {
			into, err := os.MkdirTemp(dir, "pushed-")
			return &transfer.Destination{Dir: into}, err
		},
		OnBegun: func(tr *transfer.Transfer) {
			go func() { // ends with the transfer; its error is the pushing side's
				_, _ = tr.Wait()
			}()
		},
	})
	require.NoError(p.t, err)
	p.t.Cleanup(func() { require.NoError(p.t, service.Close()) })
	service.Handle(p.server)
	tree := p.tree()
	share, err := service.Share(tree, &transfer.ShareOptions{Many: true})
	require.NoError(p.t, err)
	p.t.Cleanup(share.Close)
	p.lanes = []*lane{
		{name: "calls", do: p.call}, {name: "requests", do: request}, {name: "messages", do: messages},
		{name: "streams", do: p.stream(nil)}, {name: "dedicated streams", do: p.stream(&session.StreamOptions{Dedicated: true})},
		{name: "resumable streams", do: p.stream(&session.StreamOptions{Dedicated: true, Resumable: true})},
		{name: "records", do: p.records}, {name: "bulk lanes", do: p.bulk(&bulk.Options{Compress: true})},
		{name: "strands", do: p.bulk(&bulk.Options{Mode: bulk.Dedicated, Strands: 3})},
		{name: "fetches", do: p.fetch(dir, share.Ref())}, {name: "pushes", do: p.push(dir, tree)},
	}
}

func (p *pair) call(ctx context.Context, _ *session.Session, d *rand.Rand) error {
	body := some(d, 50_000)
	reply, err := p.client.Send(ctx, p.b.ID(), tag, body)
	return same(body, reply, err)
}

func same(sent, got []byte, err error) error {
	if err == nil && !bytes.Equal(sent, got) {
		return errGarbled
	}
	return err
}

func request(ctx context.Context, s *session.Session, d *rand.Rand) error {
	body := some(d, 5000)
	reply, err := s.Call(ctx, "echo", body)
	return same(body, reply, err)
}

func messages(ctx context.Context, s *session.Session, d *rand.Rand) error {
	for range 1 + d.IntN(20) {
		if err := s.Send(ctx, "one-way", some(d, 3000)); err != nil {
			return err
		}
	}
	return s.Flush(ctx)
}

// stream returns the work of opening a stream, and having what is written come back.
func (p *pair) stream(opts *session.StreamOptions) func(context.Context, *session.Session, *rand.Rand) error {
	return func(ctx context.Context, s *session.Session, d *rand.Rand) error {
		st, err := s.OpenStream(ctx, "echo", opts)
		if err != nil {
			return err
		}
		return echoed(ctx, st, some(d, 200_000))
	}
}

// both is a lane of bytes.
type both interface {
	io.ReadWriteCloser
	CloseWrite() error
	SetDeadline(t time.Time) error
}

func echoed(ctx context.Context, st both, body []byte) error {
	end, _ := ctx.Deadline()
	_ = st.SetDeadline(end) // what is closed fails in the read
	var writing sync.WaitGroup
	var wrote error
	writing.Go(func() {
		if _, wrote = st.Write(body); wrote == nil {
			wrote = st.CloseWrite()
		}
	})
	got, err := io.ReadAll(st)
	writing.Wait()
	if err = errors.Join(wrote, err); err != nil {
		_ = st.Close() // it is over
		return err
	}
	_ = st.Close() // everything has come back
	return same(body, got, nil)
}

// bulk returns the work of opening a lane, and having what is written come back.
func (p *pair) bulk(opts *bulk.Options) func(context.Context, *session.Session, *rand.Rand) error {
	return func(ctx context.Context, s *session.Session, d *rand.Rand) error {
		l, err := bulk.Open(ctx, s, "bulk", opts)
		if err != nil {
			return err
		}
		return echoed(ctx, l, some(d, 500_000))
	}
}

// takeRecords applies records.
func (p *pair) takeRecords(s *record.Stream) {
	_ = record.Apply(context.Background(), s, func(_ context.Context, r record.Record) error { // its end is the writer's to judge
		if want := fmt.Sprint("record ", r.Seq); string(r.Payload) != want {
			p.t.Errorf("record %d is %q", r.Seq, r.Payload)
		}
		return nil
	}, nil)
}

// records writes records, and waits until they are applied.
func (p *pair) records(ctx context.Context, s *session.Session, d *rand.Rand) error {
	r, err := record.Open(ctx, s, "records", nil)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // the barrier has told
	for i := range 1 + d.IntN(200) {
		if _, err := r.WriteRecord(ctx, fmt.Append(nil, "record ", i+1)); err != nil {
			return err
		}
	}
	return r.Barrier(ctx)
}

// tree is a folder with small files and a large one.
func (p *pair) tree() *source.Tree {
	root := filepath.Join(p.t.TempDir(), "tree")
	require.NoError(p.t, os.MkdirAll(root, 0o755))
	for name, size := range map[string]int{"small": 1000, "empty": 0, "pieces": 700_000} {
		require.NoError(p.t, os.WriteFile(filepath.Join(root, name), bytes.Repeat([]byte(name+" "), size), 0o600))
	}
	tree, err := source.Walk(p.t.Context(), []string{root}, nil)
	require.NoError(p.t, err)
	require.NoError(p.t, tree.Hash(p.t.Context(), nil))
	p.t.Cleanup(func() { require.NoError(p.t, tree.Close()) })
	return tree
}

func (p *pair) dial(ctx context.Context) (*session.Session, error) { return p.keeper.Get(ctx) }

// fetch returns the work of fetching the tree.
func (p *pair) fetch(dir string, ref transfer.Ref) func(context.Context, *session.Session, *rand.Rand) error {
	return func(ctx context.Context, _ *session.Session, _ *rand.Rand) error {
		to, err := os.MkdirTemp(dir, "fetched-")
		if err != nil {
			return err
		}
		_, err = transfer.Fetch(ctx, []transfer.Dialer{p.dial}, ref, to, &transfer.ReceiveOptions{Sync: transfer.SyncNone}).Wait()
		return errors.Join(excused(err), os.RemoveAll(to))
	}
}

// push returns the work of pushing the tree.
func (p *pair) push(dir string, tree *source.Tree) func(context.Context, *session.Session, *rand.Rand) error {
	return func(ctx context.Context, _ *session.Session, _ *rand.Rand) error {
		_, err := transfer.Push(ctx, p.dial, tree, nil).Wait()
		old, globErr := filepath.Glob(filepath.Join(dir, "pushed-*"))
		errs := []error{excused(err), globErr}
		for _, path := range old {
			errs = append(errs, os.RemoveAll(path))
		}
		return errors.Join(errs...)
	}
}

// excused is err, as one that a network which breaks excuses if it is about that.
func excused(err error) error {
	switch transfer.CodeOf(err) {
	case transfer.CodeLost, transfer.CodeStalled, transfer.CodeBusy:
		return errors.Join(err, session.ErrUnavailable)
	}
	return err
}
