package record

import (
	"context"
	"errors"
	"io"
	"iter"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// funcStore is a Store whose methods may be set; those that are not keep nothing.
type funcStore struct {
	begin   func(lost func()) (Place, error)
	tail    func(seq uint64) iter.Seq2[Record, error]
	append  func(first uint64, records iter.Seq[[]byte], acked uint64) error
	applied func(log LogID, seq uint64) error
	end     func(acked uint64) error
	ends    int
}

func (s *funcStore) Begin(lost func()) (Place, error) {
	if s.begin != nil {
		return s.begin(lost)
	}
	return noStore(), nil
}

func (s *funcStore) Tail(seq uint64) iter.Seq2[Record, error] {
	if s.tail != nil {
		return s.tail(seq)
	}
	return func(func(Record, error) bool) {}
}

func (s *funcStore) Append(first uint64, records iter.Seq[[]byte], acked uint64) error {
	if s.append != nil {
		return s.append(first, records, acked)
	}
	return nil
}

func (s *funcStore) Applied(log LogID, seq uint64) error {
	if s.applied != nil {
		return s.applied(log, seq)
	}
	return nil
}

func (s *funcStore) End(acked uint64) error {
	s.ends++
	if s.end != nil {
		return s.end(acked)
	}
	return nil
}

var errDisk = errors.New("/secret/path: no space left on device")

// behind returns the place of a side that has written one record which is not acknowledged.
func behind(func()) (Place, error) { return Place{Log: testLog, Next: 2}, nil }

// A side that has said yes, and then cannot, says so by CLOSE: a REFUSE behind an ACCEPT is no frame.
// Claim: record.ErrStore
func TestASideThatCannotGoOnTellsTheOther(t *testing.T) {
	one := func(payload []byte, err error) func(uint64) iter.Seq2[Record, error] {
		return func(uint64) iter.Seq2[Record, error] {
			return func(yield func(Record, error) bool) { yield(Record{1, payload}, err) }
		}
	}
	for name, test := range map[string]struct {
		store *funcStore
		err   error
		code  Code
		says  string // the reason, as the other side sees it
	}{
		"Begin fails":           {&funcStore{begin: func(func()) (Place, error) { return Place{}, errDisk }}, errDisk, CodeStore, ""},
		"Tail fails":            {&funcStore{begin: behind, tail: one(nil, errDisk)}, errDisk, CodeStore, ""},
		"a record is not kept":  {&funcStore{begin: behind}, ErrStore, CodeStore, ""},
		"a kept one is too big": {&funcStore{begin: behind, tail: one(make([]byte, 11), nil)}, ErrTooLarge, codeNotAccepted, "11 bytes"},
	} {
		for side := range 2 {
			synctest.Test(t, func(t *testing.T) {
				test.store.ends = 0
				opts := [2]*Options{{MaxRecord: 10}, {MaxRecord: 10}}
				opts[side] = &Options{Store: test.store}
				near, far := newLink()
				var errs [2]error
				var peers [2]*Stream
				accepted := make(chan struct{})
				go func() {
					defer close(accepted)
					peers[1], errs[1] = AcceptConn(context.Background(), far, opts[1])
				}()
				peers[0], errs[0] = OpenConn(context.Background(), near, opts[0])
				<-accepted
				require.Nil(t, peers[side])
				require.ErrorIs(t, errs[side], test.err, name)
				other := errs[1-side]
				if s := peers[1-side]; s != nil { // it had its yes
					<-s.Done()
					other = s.Err()
				}
				if name == "Begin fails" && side == 0 {
					require.ErrorIs(t, other, io.ErrUnexpectedEOF, "it has not said a word")
					return
				}
				var e *Error
				require.ErrorAs(t, other, &e, "%s, side %d", name, side)
				require.True(t, e.Remote, "%s, side %d: %v", name, side, other)
				require.Equal(t, test.code, e.Code, name)
				require.Contains(t, e.Text, test.says)
				require.NotContains(t, e.Text, "secret", "what goes on inside is not the peer's")
				if name != "Begin fails" {
					require.Equal(t, 1, test.store.ends, name)
				}
			})
		}
	}
}

// A conn that has said nothing, or nothing sensible, does not take a Store from the stream that has it.
func TestAcceptConnTakesItsStoreForAPeerWithAHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taken := 0
		store := &funcStore{begin: func(func()) (Place, error) { taken++; return noStore(), nil }}
		silent := begun(t, AcceptConn, t.Context(), &Options{Store: store})
		silent.failed(context.DeadlineExceeded)
		stranger := begun(t, AcceptConn, t.Context(), &Options{Store: store})
		stranger.says([]byte("GET / HTTP/1.1\r\n\r\n"))
		stranger.failed(ErrProtocol)
		require.Zero(t, taken)
		require.Zero(t, store.ends)
		p := withRaw(t, &Options{Store: store}, nil)
		require.Equal(t, 1, taken)
		require.NoError(t, p.s.Close())
		require.Equal(t, 1, store.ends)
	})
}
