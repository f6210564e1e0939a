package transfer_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/transfer"
)

// fetchTo fetches a share, and returns what Place was shown, or nil if it was not called.
func fetchTo(
	t *testing.T, p *peerlanetest.Sessions, ref transfer.Ref, dir string, o transfer.ReceiveOptions, place *transfer.Place, refuse error,
) (asked *transfer.Incoming, r transfer.Result, err error) {
	t.Helper()
	o.Place = func(_ context.Context, in transfer.Incoming) (*transfer.Place, error) {
		require.Nil(t, asked, "once")
		asked = &in
		return place, refuse
	}
	r, err = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, ref, dir, &o).Wait()
	return asked, r, err
}

// Claim: transfer.ReceiveOptions.Place, transfer.Place.Dir
// Claim: transfer.ShareOptions.Name
func TestAFetchAsksWhereATreeGoes(t *testing.T) {
	p := newPair(t)
	v := service(t, p, nil)
	one := write(t, content{"a": 10, "in/b": 300000})
	share, err := v.Share(walk(t, one), &transfer.ShareOptions{Name: "holiday.jpg", Many: true})
	require.NoError(t, err)
	other := filepath.Join(t.TempDir(), "z")
	require.NoError(t, os.WriteFile(other, []byte("z"), 0o600))
	both, err := v.Share(walk(t, one, other), &transfer.ShareOptions{Name: "holiday", Many: true})
	require.NoError(t, err)
	from, to := t.TempDir(), t.TempDir()

	asked, r, err := fetchTo(t, p, share.Ref(), from, transfer.ReceiveOptions{}, &transfer.Place{Dir: to}, nil)
	require.NoError(t, err)
	require.Equal(t, "tree", asked.Name, "what it brings, and not what the sender calls it")
	require.Equal(t, "tree", r.Name)
	require.Equal(t, "bob", asked.Peer)
	require.Equal(t, 2, asked.Files)
	require.EqualValues(t, 300010, asked.Bytes)
	require.Len(t, asked.Entries, 4)
	same(t, one, filepath.Join(to, "tree"))
	left, err := os.ReadDir(from)
	require.NoError(t, err)
	require.Empty(t, left)

	asked, r, err = fetchTo(t, p, both.Ref(), from, transfer.ReceiveOptions{}, &transfer.Place{Dir: to}, nil)
	require.NoError(t, err)
	require.Equal(t, "holiday", asked.Name)
	require.Equal(t, "holiday", r.Name)
}

func TestAFetchThatIsNotPlacedLeavesNothing(t *testing.T) {
	p := newPair(t)
	share, err := service(t, p, nil).Share(walk(t, write(t, content{"a": 10})), &transfer.ShareOptions{Many: true})
	require.NoError(t, err)
	dir, why := t.TempDir(), errors.New("not today")
	for _, c := range []struct {
		place  *transfer.Place
		refuse error
		want   transfer.Code
	}{
		{nil, why, transfer.CodeCanceled},
		{nil, &transfer.Error{Code: transfer.CodePathUnsafe, Text: "a dot"}, transfer.CodePathUnsafe},
		{nil, nil, transfer.CodeInvalid},
		{&transfer.Place{Dir: filepath.Join(dir, "none")}, nil, transfer.CodeIO},
	} {
		_, _, err := fetchTo(t, p, share.Ref(), dir, transfer.ReceiveOptions{}, c.place, c.refuse)
		require.Equal(t, c.want, transfer.CodeOf(err), "%v", err)
		if errors.Is(c.refuse, why) {
			require.ErrorIs(t, err, why)
		}
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

func TestAPlaceThatWaitsEndsWithItsTransfer(t *testing.T) {
	p := newPair(t)
	share, err := service(t, p, nil).Share(walk(t, write(t, content{"a": 10})), nil)
	require.NoError(t, err)
	waits := make(chan struct{})
	got := transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), t.TempDir(), &transfer.ReceiveOptions{
		Place: func(ctx context.Context, _ transfer.Incoming) (*transfer.Place, error) {
			close(waits)
			<-ctx.Done()
			return nil, ctx.Err()
		}})
	<-waits
	got.Cancel()
	_, err = got.Wait()
	require.Equal(t, transfer.CodeCanceled, transfer.CodeOf(err))
}

// Claim: transfer.Place.Complete
func TestACompletePlaceIsNotChanged(t *testing.T) {
	p := newPair(t)
	from := write(t, content{"a": 10, "empty": 0, "in/b": 20, "dir": -1})
	require.NoError(t, os.Chmod(filepath.Join(from, "dir"), 0o755))
	share, err := service(t, p, nil).Share(walk(t, from), &transfer.ShareOptions{Many: true})
	require.NoError(t, err)
	get := func(to string, o transfer.ReceiveOptions) error {
		asked, r, err := fetchTo(t, p, share.Ref(), to, o, &transfer.Place{Dir: to, Complete: true}, nil)
		require.NotNil(t, asked)
		if err == nil {
			require.Equal(t, r.Progress.Bytes, r.Progress.Resumed)
		}
		left, globErr := filepath.Glob(filepath.Join(to, transfer.StagingPrefix+"*"))
		require.NoError(t, globErr)
		require.Empty(t, left)
		return err
	}
	complete := func() string {
		to := t.TempDir()
		_, err := transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), to, nil).Wait()
		require.NoError(t, err)
		return to
	}

	to := complete()
	for _, o := range []transfer.ReceiveOptions{{}, {Checksum: true}} {
		require.NoError(t, get(to, o))
		same(t, from, filepath.Join(to, "tree"))
	}
	at := time.Unix(1600000000, 0)
	require.NoError(t, os.Chmod(filepath.Join(to, "tree", "dir"), 0o700))
	require.NoError(t, os.Chtimes(filepath.Join(to, "tree", "dir"), at, at))
	before := read(t, to)
	require.NoError(t, get(to, transfer.ReceiveOptions{}))
	require.Equal(t, before[filepath.Join("tree", "dir")], read(t, to)[filepath.Join("tree", "dir")], "a folder stays as it is")

	for _, lacks := range []string{"a", "empty", "in/b", "dir"} {
		to := complete()
		require.NoError(t, os.Remove(filepath.Join(to, "tree", lacks)))
		before := read(t, filepath.Join(to, "tree"))
		err := get(to, transfer.ReceiveOptions{})
		require.Equal(t, transfer.CodeExists, transfer.CodeOf(err), lacks)
		require.ErrorContains(t, err, lacks)
		require.Equal(t, before, read(t, filepath.Join(to, "tree")))
	}
	to = complete()
	require.NoError(t, os.Remove(filepath.Join(to, "tree", "dir")))
	require.NoError(t, os.WriteFile(filepath.Join(to, "tree", "dir"), nil, 0o600))
	require.Equal(t, transfer.CodeExists, transfer.CodeOf(get(to, transfer.ReceiveOptions{})))
	require.NoError(t, os.RemoveAll(filepath.Join(to, "tree")))
	require.Equal(t, transfer.CodeExists, transfer.CodeOf(get(to, transfer.ReceiveOptions{})), "all of it is missing")
}

func TestDataOfAnEarlierRunIsInItsPlace(t *testing.T) {
	p := newPair(t)
	share, err := service(t, p, nil).Share(walk(t, write(t, content{"a": 3 << 20})), &transfer.ShareOptions{Many: true})
	require.NoError(t, err)
	to := t.TempDir()
	interrupt := func() {
		t.Helper()
		got := transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), to,
			&transfer.ReceiveOptions{Options: transfer.Options{Rate: 1 << 20}, Sync: transfer.SyncEach})
		for range got.Watch(t.Context(), 5*time.Millisecond) {
			if got.Progress().Verified > 0 {
				break
			}
		}
		got.Cancel()
		_, err := got.Wait()
		require.Equal(t, transfer.CodeCanceled, transfer.CodeOf(err))
	}
	interrupt()
	asked, _, err := fetchTo(t, p, share.Ref(), to, transfer.ReceiveOptions{}, nil, errors.New("it is known"))
	require.NoError(t, err)
	require.Nil(t, asked)

	require.NoError(t, os.RemoveAll(filepath.Join(to, "tree")))
	interrupt()
	_, r, err := fetchTo(t, p, share.Ref(), t.TempDir(), transfer.ReceiveOptions{}, &transfer.Place{Dir: to, Complete: true}, nil)
	require.NoError(t, err, "Place found it")
	require.Positive(t, r.Progress.Resumed)
}

func TestAFolderNameIsHarmless(t *testing.T) {
	for name, want := range map[string]string{
		"2 items":                      "2 items",
		"Fotos – Sommer ☀":             "Fotos – Sommer ☀",
		"":                             "received",
		"..":                           "received",
		"../../etc":                    "_.._etc",
		"/":                            "received",
		".ssh":                         "ssh",
		"\u200b.ssh":                   "ssh",
		". .ssh":                       "ssh",
		"-rf":                          "rf",
		"~root":                        "root",
		"a\x1b[2Jb\nc":                 "a_[2Jb_c",
		"ab\u202egpj.exe":              "abgpj.exe",
		"a\xffb":                       "a_b",
		`c:\x`:                         "c__x",
		"NUL":                          "_NUL",
		"com1.txt":                     "_com1.txt",
		"XFER-1~1":                     "_XFER-1~1",
		".xfer-0011223344556677":       "xfer-0011223344556677",
		"dot. . ":                      "dot",
		strings.Repeat("ä", 1000):      strings.Repeat("ä", 50),
		strings.Repeat("x", 99) + ". ": strings.Repeat("x", 99),
	} {
		require.Equal(t, want, transfer.FolderName(name), "%q", name)
		require.Equal(t, want, transfer.FolderName(want), "%q", want)
	}
}
