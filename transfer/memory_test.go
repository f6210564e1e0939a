package transfer_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
)

// quotaOf returns two sides of a session, of which Bob has a quota of so many bytes.
func quotaOf(t *testing.T, limit int64) (*peerlanetest.Sessions, *session.Quota) {
	quota := &session.Quota{MaxBytes: limit}
	return peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{
		Accept: &session.AcceptorConfig{Config: session.Config{Quota: quota}}}), quota
}

// many are small files.
func many(n int) content {
	files := content{"large": 4 << 20}
	for i := range n {
		files[fmt.Sprint("small/", i)] = 10
	}
	return files
}

// The manifest of a push is in the share of its peer from when it comes until the transfer is over, and so is what it brings until it is written.
// Without room for it, the push is refused, and its peer learns that it can try again.
func TestAPushIsInTheQuota(t *testing.T) {
	const files, limit = 2000, 16 << 20
	from, to := write(t, many(files)), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p, quota := quotaOf(t, limit)
		var asked, begun int64
		cfg := into(to, transfer.ReceiveOptions{})
		answer := cfg.Receive
		cfg.Receive = func(ctx context.Context, in transfer.Incoming) (*transfer.Destination, error) {
			asked = quota.Snapshot().Bytes
			return answer(ctx, in)
		}
		cfg.OnBegun = func(*transfer.Transfer) { begun = quota.Snapshot().Bytes }
		service(t, p, cfg)
		tree := walk(t, from)

		part := quota.Hold("alice", "")
		defer part.Leave()
		require.NoError(t, part.Take(0, 27<<19))
		_, err := transfer.Push(t.Context(), always(p.Alice), tree, nil).Wait()
		require.Equal(t, transfer.CodeBusy, transfer.CodeOf(err), "%v", err)
		require.ErrorContains(t, err, "no memory")
		require.Zero(t, asked)
		part.Release(0, 27<<19)

		_, err = transfer.Push(t.Context(), always(p.Alice), tree, nil).Wait()
		require.NoError(t, err)
		require.Greater(t, asked, int64(files*29*8))
		require.Greater(t, begun, int64(files*29*8))
		same(t, from, filepath.Join(to, "tree"))
		time.Sleep(10 * time.Second)
		require.Zero(t, quota.Snapshot().Bytes)
	})
}

// Pieces that a server reads ahead for a peer, and those that it has not written, are in the peer's share. Without room, the lanes wait, and go on
// when there is some.
func TestPiecesWaitForRoomInTheQuota(t *testing.T) {
	const limit = 8 << 20
	from := write(t, content{"large": 4 << 20})
	for _, push := range []bool{true, false} {
		to := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			p, quota := quotaOf(t, limit)
			v := service(t, p, into(to, transfer.ReceiveOptions{}))
			tree := hashedTree(t, from)
			share, err := v.Share(tree, nil)
			require.NoError(t, err)
			defer share.Close()
			part := quota.Hold("alice", "")
			defer part.Leave()
			require.NoError(t, part.Take(0, 7<<20-1<<18))
			var x *transfer.Transfer
			if push {
				x = transfer.Push(t.Context(), always(p.Alice), tree, nil)
			} else {
				x = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), to, nil)
			}
			time.Sleep(5 * time.Second)
			require.NotEqual(t, transfer.PhaseDone, x.Progress().Phase)
			require.Zero(t, x.Progress().Durable)
			part.Release(0, 7<<20-1<<18)
			_, err = x.Wait()
			require.NoError(t, err)
			same(t, from, filepath.Join(to, "tree"))
			time.Sleep(10 * time.Second)
			require.Zero(t, quota.Snapshot().Bytes)
		})
	}
}
