package transfer_test

import (
	"context"
	"errors"
	"path/filepath"
	"runtime/metrics"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

// What the bits of FuzzWholeTransfer's mode say.
const (
	toOpener = 1 << iota // what comes to the opener is changed, and not what comes to the service
	pushed               // the opener sends
	hashed               // the tree was hashed before
	fuzzModes
)

// FuzzWholeTransfer: whatever a hostile sender or receiver makes of its part of a transfer, the other side neither panics nor hangs,
// reserves no more than the transfer needs, ends with nil or an error of this package, and touches nothing outside the destination;
// and what a fetch of a hashed tree has taken for it is that tree.
func FuzzWholeTransfer(f *testing.F) {
	for mode := range uint8(fuzzModes) {
		f.Add(mode, []byte{}, []byte{})
		f.Add(mode, []byte{0, 2, 8, 0, 9, 1}, []byte{2, 0, 1, 3})
		f.Add(mode, []byte{0, 1, 6, 1, 13}, []byte{8, 0, 9, 1})
		f.Add(mode, []byte{0, 4, 14}, []byte{13, 20})
		f.Add(mode, []byte{}, []byte{8, 0, 9, 1}) // a byte of a file
		f.Add(mode, []byte{}, []byte{0, 1, 8, 100, 9, 1})
		f.Add(mode, []byte{0, 2, 8, 0, 9, 1}, []byte{})
		f.Add(mode, []byte{12, 4, 16, 0, 0, 0, 0, 0, 0, 4, 2, 'i', 'o', '!'}, []byte{})
	}
	from := write(f, content{"empty": 0, "small": 1000, "dir/other": 3000, "nothing": -1, "pieces": 600_000})
	f.Fuzz(func(t *testing.T, mode uint8, control, data []byte) {
		if len(control) > 1<<10 || len(data) > 1<<10 {
			return
		}
		to, untouched := guard(t)
		synctest.Test(t, func(t *testing.T) { wholeTransfer(t, mode, control, data, from, to) })
		untouched()
	})
}

// wholeTransfer makes one transfer.
func wholeTransfer(t *testing.T, mode uint8, control, data []byte, from, to string) {
	m := newMiddle(t, mode&toOpener != 0, control, data)
	tree := walk(t, from)
	if mode&hashed != 0 {
		require.NoError(t, tree.Hash(t.Context(), &source.HashOptions{Workers: 1}))
	}
	o := transfer.Options{Lanes: 2, ResumeWindow: 5 * time.Second, StallAfter: 2 * time.Second}
	receive := transfer.ReceiveOptions{Options: o}
	begun := make(chan *transfer.Transfer, 64)
	cfg := into(to, receive)
	cfg.Options, cfg.OnBegun = o, func(tr *transfer.Transfer) { begun <- tr }
	v := service(t, m.far, cfg)
	before := allocated()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	var opened *transfer.Transfer
	if mode&pushed != 0 {
		opened = transfer.Push(ctx, always(m.near.Alice), tree, &o)
	} else {
		share, err := v.Share(tree, nil)
		require.NoError(t, err)
		defer share.Close()
		opened = transfer.Fetch(ctx, []transfer.Dialer{always(m.near.Alice)}, share.Ref(), to, &receive)
	}
	_, err := opened.Wait()
	require.NoError(t, ctx.Err(), "it hangs")
	typed(t, err)
	require.NoError(t, v.Close())
	close(begun)
	for tr := range begun {
		_, err := tr.Wait()
		typed(t, err)
	}
	require.Less(t, allocated()-before, uint64(64<<20))
	_, _ = m.near.Alice.Close(), m.far.Alice.Close() // how they end is not the transfer's matter
	time.Sleep(time.Minute)                          // the middle may be in a pause
	if len(control)+len(data) == 0 {                 // nobody is hostile
		require.NoError(t, err)
	}
	if err == nil && (mode&(toOpener|pushed|hashed) == toOpener|hashed || len(control)+len(data) == 0) {
		same(t, from, filepath.Join(to, "tree"))
	}
}

// typed requires that a transfer has ended well, or with an error of the package.
func typed(t *testing.T, err error) {
	t.Helper()
	e, ok := errors.AsType[*transfer.Error](err)
	require.True(t, err == nil || ok && e.Code != "", "%v", err)
}

// allocated returns how many bytes the process has ever allocated on the heap.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
