// Command replicate keeps a key-value database in step with that of another process. Kill either of them at any time, with -9 too, and
// start it again with the same directory: every operation is applied once on each side, in the same order.
//
//	replicate lead   -dir /tmp/a -listen /ip4/127.0.0.1/tcp/4001 -n 10000
//	replicate follow -dir /tmp/b -leader /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...     as the leader prints it
//
// It shows what it takes to replicate exactly once with package record and package boltstore:
//
//   - The leader applies an operation to its own data and puts it into an outbox, in one transaction. Operations are numbered, and the
//     one numbered n becomes record n of the log: so the length of the log, which boltstore keeps, says which have not been sent.
//   - The follower applies a record and keeps its place in the leader's log, in one transaction (boltstore.Store.Commit).
//   - What one side kept and the other has not, the next stream makes good.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/record/boltstore"
	"github.com/peerlane/peerlane/resume"
)

const (
	tag        = "/replicate/1.0.0"
	streamName = "kv"
	batch      = 64 // operations at once, at most
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] != "lead" && args[0] != "follow" {
		return errors.New("say lead or follow, and -help behind it for the rest")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	dir := flags.String("dir", "", "where the database and the key are")
	listen := flags.String("listen", "/ip4/127.0.0.1/tcp/4001", "lead: where to listen")
	n := flags.Uint64("n", 10000, "lead: how many operations there are to be in all")
	pause := flags.Duration("pause", time.Millisecond, "lead: between two transactions")
	leaderAddr := flags.String("leader", "", "follow: the leader's address")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	db, err := bbolt.Open(filepath.Join(*dir, "db"), 0o600, &bbolt.Options{Timeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Update(makeBuckets); err != nil {
		return err
	}
	store, err := boltstore.New(db, streamName) // one follower, one log: each further follower has a log of its own
	if err != nil {
		return err
	}
	options := &node.Options{KeyFile: filepath.Join(*dir, "key"), NoListen: true}
	if args[0] == "lead" {
		options.NoListen, options.ListenAddrs = false, []string{*listen}
	}
	host, err := node.New(ctx, options)
	if err != nil {
		return err
	}
	defer host.Close()
	if args[0] == "lead" {
		l := &leader{db: db, store: store, last: *n, written: make(chan struct{}, 1), done: make(chan error, 1)}
		return l.run(ctx, host, *pause)
	}
	return follow(ctx, host, *leaderAddr, db, store)
}

// leader writes operations, and sends them to whoever follows.
type leader struct {
	db      *bbolt.DB
	store   *boltstore.Store
	last    uint64        // number of the last operation
	written chan struct{} // the outbox has got more; 1 slot
	done    chan error    // nil: the follower has applied the last; 1 slot
}

func (l *leader) run(ctx context.Context, host *node.Node, pause time.Duration) error {
	// In earnest, say who may follow: by AllowPeers, or by a key (see ../psk).
	config := peerlane.DefaultServerConfig()
	config.AdmitAll = true
	server, err := peerlane.NewServer(host.Host(), config)
	if err != nil {
		return err
	}
	defer func() {
		short, cancel := context.WithTimeout(context.Background(), time.Second) // a follower that was killed does not answer
		defer cancel()
		_ = server.Shutdown(short) // everything is applied, or the next start goes on
	}()
	record.Handle(server, streamName, func(record.AcceptInfo) (*record.Options, error) {
		return &record.Options{Store: l.store}, nil
	}, func(s *record.Stream) { l.serve(ctx, s) })
	if err := server.Listen(tag); err != nil {
		return err
	}
	fmt.Println("the leader is", host.Addrs()[0])

	ctx, cancel := context.WithCancel(ctx)
	var writing sync.WaitGroup
	writing.Go(func() {
		if err := l.write(ctx, pause); err != nil {
			l.finish(err)
		}
	})
	defer writing.Wait()
	defer cancel()
	select {
	case err := <-l.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finish ends the leader, once.
func (l *leader) finish(err error) {
	select {
	case l.done <- err:
	default:
	}
}

// write does random operations until there are enough, a few in a transaction.
func (l *leader) write(ctx context.Context, pause time.Duration) error {
	for enough := false; !enough; {
		err := l.db.Update(func(tx *bbolt.Tx) error {
			for range 1 + rand.IntN(10) {
				if enough = count(tx) >= l.last; enough {
					return nil
				}
				op := operation{Key: fmt.Sprint("key ", rand.IntN(100))}
				if rand.IntN(3) > 0 {
					value := fmt.Sprint("value ", rand.Uint64())
					op.Value = &value
				}
				if err := writeOperation(tx, op); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		select {
		case l.written <- struct{}{}:
		default:
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// serve serves the follower until its stream ends. A follower that is lost comes back on another.
func (l *leader) serve(ctx context.Context, s *record.Stream) {
	switch err := l.send(ctx, s); {
	case err == nil:
		l.finish(s.Close())
	case errors.Is(err, record.ErrStore): // a full disk, for one
		l.finish(err)
	default:
		log.Println("lost the follower:", err)
	}
}

// send makes records of the outbox, and waits until the follower has applied the last of them.
func (l *leader) send(ctx context.Context, s *record.Stream) error {
	place, err := l.store.Place()
	if err != nil {
		return err
	}
	if err := emptyOutbox(l.db, place.Next-1); err != nil {
		return err
	}
	for next := place.Next; next <= l.last; {
		operations, err := fromOutbox(l.db, next, batch)
		if err != nil {
			return err
		}
		if len(operations) == 0 {
			select {
			case <-l.written:
				continue
			case <-s.Done():
				return s.Err()
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		last, err := s.WriteBatch(ctx, operations)
		if err != nil {
			return err
		}
		if err := emptyOutbox(l.db, last); err != nil {
			return err
		}
		next = last + 1
	}
	return s.Barrier(ctx)
}

// follow applies what the leader has written, for ever. It comes back to a leader that was lost.
func follow(ctx context.Context, host *node.Node, addr string, db *bbolt.DB, store *boltstore.Store) error {
	info, err := node.ParsePeer(addr)
	if err != nil {
		return err
	}
	host.Remember(info)
	config := peerlane.DefaultClientConfig()
	config.AdmitAll = true
	client, err := peerlane.NewClient(host.Host(), config)
	if err != nil {
		return err
	}
	defer client.Close()
	keeper, err := client.Keep(info.ID, tag, &peerlane.KeeperConfig{Backoff: resume.Backoff{Max: time.Second}})
	if err != nil {
		return err
	}
	defer keeper.Close()
	for {
		session, err := keeper.Get(ctx)
		if err != nil {
			return err
		}
		s, err := record.Open(ctx, session, streamName, &record.Options{Store: store})
		if err == nil {
			err = applyRecords(ctx, s, db, store)
			_ = s.Close() // what has been applied is kept already
		}
		if errors.Is(err, record.ErrHistory) || errors.Is(err, record.ErrStore) {
			return err // a person has to decide
		}
		log.Println("comes back to the leader after:", err)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// applyRecords applies records as they come, with their places, and acknowledges them.
func applyRecords(ctx context.Context, s *record.Stream, db *bbolt.DB, store *boltstore.Store) error {
	records := make([]record.Record, batch)
	for {
		n, err := s.ReadBatch(ctx, records)
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			for _, r := range records[:n] {
				if err := errors.Join(apply(tx, r.Payload), store.Commit(tx, r.Seq)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := s.AckRecord(records[n-1].Seq); err != nil {
			return err
		}
	}
}
