package transfer_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/staging"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// once moves a tree, in virtual time.
func once(t *testing.T, way, from, to string, o transfer.ReceiveOptions) (result transfer.Result, err error) {
	t.Helper()
	tree := walk(t, from)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), hour)
		defer cancel()
		result, err = moved(ctx, t, way, newPair(t), tree, to, o)
	})
	return result, err
}

// A run is interrupted after it has published a file. The file is deleted or changed, and the same run resumes.
func TestAStateThatIsContinuedLooksAtWhatHasItsName(t *testing.T) {
	for way := range ways {
		for what, do := range map[string]func(t *testing.T, name string){
			"deleted": func(t *testing.T, name string) { require.NoError(t, os.Remove(name)) },
			"moved": func(t *testing.T, name string) {
				require.NoError(t, os.Rename(name, filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(name))), "mine")))
			},
			"replaced": func(t *testing.T, name string) { require.NoError(t, os.WriteFile(name, []byte("other\n"), 0o600)) },
			"folder": func(t *testing.T, name string) {
				require.NoError(t, os.Remove(name))
				require.NoError(t, os.Mkdir(name, 0o755))
			},
			"all gone": func(t *testing.T, name string) { require.NoError(t, os.RemoveAll(filepath.Dir(filepath.Dir(name)))) },
		} {
			if way != "fetch" && what != "deleted" && what != "replaced" {
				continue // push and fetch do the same
			}
			t.Run(way+", "+what, func(t *testing.T) {
				from, to := write(t, content{"a/first": 300 << 10, "b/second": 8 << 20}), t.TempDir()
				half(t, way, walk(t, from), to, 5*time.Second)
				first := filepath.Join(to, "tree/a/first")
				require.FileExists(t, first)
				do(t, first)
				if what == "replaced" || what == "folder" {
					_, err := once(t, way, from, to, transfer.ReceiveOptions{})
					require.Equal(t, transfer.CodeExists, transfer.CodeOf(err), "%v", err)
					require.NoError(t, os.Rename(first, filepath.Join(to, "mine")))
				}
				result, err := once(t, way, from, to, transfer.ReceiveOptions{})
				require.NoError(t, err)
				require.Equal(t, 2, result.Progress.FilesDone)
				require.Positive(t, result.Progress.Resumed)
				same(t, filepath.Join(from, "a"), filepath.Join(to, "tree/a"))
				same(t, filepath.Join(from, "b"), filepath.Join(to, "tree/b"))
			})
		}
	}
}

// Published files are checked again at the end of the run.
// Claim: transfer.CodeGone
func TestAFileThatGoesAwayDuringTheRunIsSaid(t *testing.T) {
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			from, to := write(t, content{"a/first": 300 << 10, "b/second": 8 << 20}), t.TempDir()
			tree := walk(t, from)
			first := filepath.Join(to, "tree/a/first")
			synctest.Test(t, func(t *testing.T) {
				time.AfterFunc(5*time.Second, func() { require.NoError(t, os.Remove(first)) })
				o := transfer.ReceiveOptions{Options: transfer.Options{Rate: 1 << 20}}
				_, err := moved(t.Context(), t, way, newPair(t), tree, to, o)
				require.Equal(t, transfer.CodeGone, transfer.CodeOf(err), "%v", err)
			})
			result, err := once(t, way, from, to, transfer.ReceiveOptions{})
			require.NoError(t, err)
			require.GreaterOrEqual(t, result.Progress.Resumed, int64(8<<20), "only what is gone is fetched again")
			same(t, from, filepath.Join(to, "tree"))
		})
	}
}

// lookAlikes has files of one piece, of several and of none.
var lookAlikes = content{"small": 400, "piece": 256 << 10, "large": 700 << 10, "empty": 0}

// forge makes files at to as those at from are, with other bytes in name.
func forge(t *testing.T, from, to, name string) {
	t.Helper()
	for file := range lookAlikes {
		b, err := os.ReadFile(filepath.Join(from, file))
		require.NoError(t, err)
		if file == name {
			b[len(b)-1] ^= 1
		}
		info, err := os.Stat(filepath.Join(from, file))
		require.NoError(t, err)
		at := filepath.Join(to, "tree", file)
		require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o755))
		require.NoError(t, os.WriteFile(at, b, info.Mode()))
		require.NoError(t, os.Chtimes(at, time.Time{}, info.ModTime()))
	}
}

// Claim: transfer.ReceiveOptions.Checksum
func TestContentsAreComparedWhenThatIsAskedFor(t *testing.T) {
	for way := range ways {
		for how, o := range map[string]transfer.ReceiveOptions{
			"not":        {},
			"verify all": {Verify: transfer.VerifyAll},
			"checksum":   {Checksum: true},
		} {
			for _, file := range []string{"", "small", "piece", "large"} {
				if how == "not" && file != "large" {
					continue
				}
				t.Run(way+", "+how+", "+file, func(t *testing.T) {
					from, to := write(t, lookAlikes), t.TempDir()
					forge(t, from, to, file)
					finds := o.Checksum || o.Verify == transfer.VerifyAll && way == "fetch hashed"
					result, err := once(t, way, from, to, o)
					switch {
					case file == "" || !finds:
						require.NoError(t, err)
						require.Equal(t, 4, result.Progress.FilesDone)
						require.Equal(t, result.Progress.Bytes, result.Progress.Resumed)
						require.Equal(t, result.Progress.Bytes, result.Progress.Durable)
						return
					default:
						require.Equal(t, transfer.CodeExists, transfer.CodeOf(err), "%v", err)
						require.ErrorContains(t, err, file)
					}
					o := o
					o.Overwrite = true
					result, err = once(t, way, from, to, o)
					require.NoError(t, err)
					require.Equal(t, int64(lookAlikes[file]), result.Progress.Bytes-result.Progress.Resumed)
					same(t, from, filepath.Join(to, "tree"))
				})
			}
		}
	}
}

// Files that an interrupted run has published are read too.
func TestVerifyAllReadsWhatAnEarlierRunHasPublished(t *testing.T) {
	from, to := write(t, content{"a": 300 << 10, "b/second": 8 << 20}), t.TempDir()
	half(t, "fetch hashed", walk(t, from), to, 5*time.Second)
	first := filepath.Join(to, "tree/a")
	info, err := os.Stat(first)
	require.NoError(t, err)
	flip(t, first)
	require.NoError(t, os.Chtimes(first, time.Time{}, info.ModTime()))
	o := transfer.ReceiveOptions{Verify: transfer.VerifyAll}
	_, err = once(t, "fetch hashed", from, to, o)
	require.Equal(t, transfer.CodeExists, transfer.CodeOf(err), "%v", err)
	o.Overwrite = true
	_, err = once(t, "fetch hashed", from, to, o)
	require.NoError(t, err)
	same(t, from, filepath.Join(to, "tree"))
}

// A file that changes at the sender before it is compared fails.
func TestAFileThatChangesBeforeItIsComparedFails(t *testing.T) {
	from, to := write(t, lookAlikes), t.TempDir()
	forge(t, from, to, "")
	tree := walk(t, from)
	require.NoError(t, os.WriteFile(filepath.Join(from, "piece"), []byte("changed"), 0o600))
	synctest.Test(t, func(t *testing.T) {
		_, err := moved(t.Context(), t, "fetch", newPair(t), tree, to, transfer.ReceiveOptions{Checksum: true})
		require.Equal(t, transfer.CodeSourceChanged, transfer.CodeOf(err), "%v", err)
	})
}

// A sender without the capability cannot send the root of a small file: the transfer fails, and does not hang.
func TestASenderOfBeforeCannotCompare(t *testing.T) {
	from, to := write(t, content{"a": 5}), t.TempDir()
	require.NoError(t, os.Rename(filepath.Join(from, "a"), filepath.Join(to, "a")))
	info, err := os.Stat(filepath.Join(to, "a"))
	require.NoError(t, err)
	entries := files(t, false, make([]byte, 5))
	entries[0].ModTime = info.ModTime().UnixNano()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		service(t, p, into(to, transfer.ReceiveOptions{Checksum: true}))
		g := &rogue{t: t, s: p.Alice}
		g.hello(wire.Sender)
		g.list(entries)
		require.Equal(t, transfer.CodeProtocol, g.why())
	})
}

// A comparison survives a lost connection: the missing roots are requested again.
func TestAComparisonOutlivesItsConnection(t *testing.T) {
	from, to := write(t, lookAlikes), t.TempDir()
	forge(t, from, to, "")
	tree := walk(t, from)
	lost := 0
	for after := 450 * time.Millisecond; after < 750*time.Millisecond; after += 50 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: 100 * time.Millisecond})
			share, err := service(t, p, nil).Share(tree, nil)
			require.NoError(t, err)
			defer share.Close()
			fetch := transfer.Fetch(t.Context(), []transfer.Dialer{again(t, p)}, share.Ref(), to, &transfer.ReceiveOptions{Checksum: true})
			time.AfterFunc(after, func() { _ = p.Bob.Close() })
			result, err := fetch.Wait()
			require.NoError(t, err, "%v", after)
			require.Equal(t, result.Progress.Bytes, result.Progress.Resumed)
			require.Equal(t, 4, result.Progress.FilesDone)
			lost += result.Progress.Losses
		})
	}
	require.Positive(t, lost)
}

// cutTimes is a disk that keeps times to a unit, and up to a last one, and has no hard links.
type cutTimes struct {
	staging.FS
	unit time.Duration
	last time.Time
}

func (c cutTimes) kept(at time.Time) time.Time {
	if at.After(c.last) {
		return c.last
	}
	return at.Truncate(c.unit)
}

func (c cutTimes) Chtimes(name string, at time.Time) error { return c.FS.Chtimes(name, c.kept(at)) }

func (c cutTimes) Link(string, string) error { return fs.ErrPermission }

func (c cutTimes) OpenFile(name string, flag int, perm fs.FileMode) (staging.File, error) {
	f, err := c.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return cutFile{f, c}, nil
}

type cutFile struct {
	staging.File
	disk cutTimes
}

func (f cutFile) Chtimes(at time.Time) error { return f.File.Chtimes(f.disk.kept(at)) }

func TestWhatCameIsRecognisedOnAnyFileSystem(t *testing.T) {
	end := time.Unix(1<<31-1, 0)
	for name, disk := range map[string]cutTimes{
		"FAT":   {unit: 2 * time.Second, last: end.Add(1e9 * time.Second)},
		"exFAT": {unit: 10 * time.Millisecond, last: end.Add(1e9 * time.Second)},
		"1 ms":  {unit: time.Millisecond, last: end.Add(1e9 * time.Second)},
		"ext3":  {unit: time.Second, last: end},
	} {
		for _, at := range []time.Time{time.Unix(1577836801, 567891234), time.Unix(2208988801, 5)} {
			t.Run(name+", "+at.UTC().Format(time.DateOnly), func(t *testing.T) {
				transfer.SetDisk(t, func(real staging.FS) staging.FS { disk := disk; disk.FS = real; return disk })
				from, to := write(t, content{"a": 5, "b": 300 << 10, "z/c": 8 << 20}), t.TempDir()
				for _, file := range []string{"a", "b", "z/c"} {
					require.NoError(t, os.Chtimes(filepath.Join(from, file), time.Time{}, at))
				}
				half(t, "fetch", walk(t, from), to, 5*time.Second)
				_, err := once(t, "fetch", from, to, transfer.ReceiveOptions{})
				require.NoError(t, err)
				result, err := once(t, "fetch", from, to, transfer.ReceiveOptions{})
				require.NoError(t, err)
				require.Equal(t, result.Progress.Bytes, result.Progress.Resumed)
			})
		}
	}
}
