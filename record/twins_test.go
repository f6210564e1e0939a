package record_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/record"
)

// twins are the two streams at the ends of a link.
type twins struct {
	link *faultnet.Link
	both [2]*record.Stream // the first has opened
}

// openBoth opens a stream between two conns.
func openBoth(ctx context.Context, here, there net.Conn, open, accept *record.Options) (both [2]*record.Stream, errs [2]error) {
	var wg sync.WaitGroup
	wg.Go(func() { both[1], errs[1] = record.AcceptConn(ctx, there, accept) })
	both[0], errs[0] = record.OpenConn(ctx, here, open)
	wg.Wait()
	return both, errs
}

// newTwins opens a stream over a link. Both ends are closed when the test ends.
func newTwins(t *testing.T, open, accept *record.Options, o faultnet.LinkOptions) *twins {
	t.Helper()
	w := &twins{link: faultnet.NewLink(o)}
	here, there := w.link.Ends()
	var errs [2]error
	w.both, errs = openBoth(t.Context(), here, there, open, accept)
	require.NoError(t, errs[0])
	require.NoError(t, errs[1])
	t.Cleanup(func() {
		_, _ = w.both[0].Close(), w.both[1].Close()
	})
	return w
}

// soon returns a ctx that ends after d.
func soon(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// text returns the payload of record seq of a side, of size bytes or a few more.
func text(side string, seq uint64, size int) []byte {
	return fmt.Appendf(nil, "%s%0*d", side, max(1, size), seq)
}

// expectRecord reads the next record and fails unless it is seq.
func expectRecord(t *testing.T, s *record.Stream, seq uint64) record.Record {
	t.Helper()
	r, err := s.ReadRecord(soon(t, time.Minute))
	require.NoError(t, err)
	require.Equal(t, seq, r.Seq)
	return r
}

// quiet waits until nothing more happens within d.
func quiet(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
