package boltstore_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/record/boltstore"
)

// The effect of a record and its place are kept in one transaction: what is applied is applied once, whatever stops when.
func ExampleStore_Commit() {
	dir, err := os.MkdirTemp("", "boltstore")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	db, err := bbolt.Open(filepath.Join(dir, "db"), 0o600, nil)
	if err != nil {
		panic(err)
	}
	defer func() { _ = db.Close() }()
	orders, err := boltstore.New(db, "orders")
	if err != nil {
		panic(err)
	}

	ctx := context.Background()
	a, b := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s, err := record.AcceptConn(ctx, b, &record.Options{Store: orders})
		if err != nil {
			panic(err)
		}
		fmt.Println(record.Apply(ctx, s, func(_ context.Context, r record.Record) error {
			return db.Update(func(tx *bbolt.Tx) error {
				data, err := tx.CreateBucketIfNotExists([]byte("data"))
				if err != nil {
					return err
				}
				if err := data.Put(fmt.Append(nil, r.Seq), r.Payload); err != nil {
					return err
				}
				return orders.Commit(tx, r.Seq)
			})
		}, nil))
		fmt.Println(s.Close())
	}()

	s, err := record.OpenConn(ctx, a, nil)
	if err != nil {
		panic(err)
	}
	for _, order := range []string{"tea", "milk"} {
		if _, err := s.WriteRecord(ctx, []byte(order)); err != nil {
			panic(err)
		}
	}
	if err := s.Barrier(ctx); err != nil { // both are applied, and on the disk
		panic(err)
	}
	_ = s.Close()
	<-done
	place, err := orders.Place()
	fmt.Println(place.Applied, err)
	// Output:
	// <nil>
	// <nil>
	// 2 <nil>
}
