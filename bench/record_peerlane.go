package main

import (
	"context"
	"errors"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/record"
)

const recordTag = "/bench/records/1.0.0"

// recordFeed is the subject: a record stream of a session, both ends with the
// defaults. The reader acknowledges all it has looked at.
type recordFeed struct {
	batch bool // WriteBatch in place of WriteRecord
}

// Name returns the feed's name.
func (f recordFeed) Name() string {
	if f.batch {
		return "peerlane batch"
	}
	return "peerlane"
}

// Start returns a stream between two new hosts.
func (f recordFeed) Start(got func([]byte) error) (runningFeed, error) {
	hosts, err := newHostPair(overTCP)
	if err != nil {
		return nil, err
	}
	s := &runningRecords{hosts: hosts, batch: f.batch, read: make(chan error, 1)}
	if err := s.start(got); err != nil {
		return nil, hosts.fail(err)
	}
	return s, nil
}

// runningRecords is a started recordFeed.
type runningRecords struct {
	hosts  *hostPair
	client *peerlane.Client
	stream *record.Stream
	batch  bool
	read   chan error // why the reader has ended
}

func (s *runningRecords) start(got func([]byte) error) error {
	serve, dial := peerlane.DefaultServerConfig(), peerlane.DefaultClientConfig()
	serve.AdmitAll, dial.AdmitAll = true, true // libp2p's security is the only one, as it is of the others
	srv, err := peerlane.NewServer(s.hosts.listener, serve)
	if err != nil {
		return err
	}
	s.hosts.push(srv.Stop)
	if s.client, err = peerlane.NewClient(s.hosts.dialer, dial); err != nil {
		return err
	}
	s.hosts.push(s.client.Close)
	record.Handle(srv, "feed", nil, func(r *record.Stream) { s.read <- readRecords(r, got) })
	if err := srv.Start(recordTag, echo); err != nil {
		return err
	}
	if err := s.hosts.connect(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	session, err := s.client.Connect(ctx, s.hosts.listener.ID(), recordTag)
	if err != nil {
		return err
	}
	s.stream, err = record.Open(ctx, session, "feed", nil)
	return err
}

// readRecords gives every record to got, and acknowledges it.
func readRecords(r *record.Stream, got func([]byte) error) error {
	batch := make([]record.Record, 1024)
	for {
		n, err := r.ReadBatch(context.Background(), batch)
		if err != nil {
			return err
		}
		for _, one := range batch[:n] {
			if err := got(one.Payload); err != nil {
				return errors.Join(err, r.Fail(one.Seq, 1, false, err.Error()))
			}
		}
		if err := r.AckRecord(batch[n-1].Seq); err != nil {
			return err
		}
	}
}

// Write writes the records, as one batch or each by itself.
func (s *runningRecords) Write(ctx context.Context, records [][]byte) error {
	if s.batch {
		_, err := s.stream.WriteBatch(ctx, records)
		return err
	}
	for _, r := range records {
		if _, err := s.stream.WriteRecord(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// Settle waits until the reader has acknowledged n records.
func (s *runningRecords) Settle(ctx context.Context, n uint64) error {
	return s.stream.BarrierTo(ctx, n)
}

// Stop closes the stream and the hosts.
func (s *runningRecords) Stop() error {
	err := s.stream.Close()
	<-s.read // io.EOF, or what Settle has told
	return errors.Join(err, s.hosts.run())
}
