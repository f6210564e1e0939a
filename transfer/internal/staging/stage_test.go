package staging

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestAPartMovesAsTheTableSays(t *testing.T) {
	for from := stageNone; from <= stagePublished; from++ {
		for to := stageNone; to <= stagePublished; to++ {
			p := &part{stage: from}
			if slices.Contains(moves[from], to) {
				p.move(to)
				require.Equal(t, to, p.stage)
				continue
			}
			require.PanicsWithValue(t, "BUG: a part that is "+from.String()+" becomes "+to.String(), func() { p.move(to) })
			require.Equal(t, from, p.stage)
		}
	}
}

func TestForgetKeepsWhatTheDirectoryMayHave(t *testing.T) {
	e := &tree()[1]
	for was, want := range map[logged]logged{loggedNo: loggedNo, loggedMaybe: loggedMaybe, loggedYes: loggedMaybe} {
		p := &part{entry: e, stage: stagePublished, use: useReset, local: localAdopted, logged: was, layered: true, durable: ranges{{0, 1}}}
		p.forget()
		require.Equal(t, part{entry: e, logged: want, layered: true}, *p)
	}
}

// requireStages sees that what is known of each part fits its stage, when no call runs.
func requireStages(t *rapid.T, s *Staging) {
	s.mu.Lock()
	defer s.mu.Unlock()
	unsynced := int64(0)
	for i := range s.parts {
		p := &s.parts[i]
		name := p.entry.Path
		require.Equal(t, useNone, p.use, name)
		require.Equal(t, p.isPlacing(), slices.Contains(s.placed, p), "%s is %v", name, p.stage)
		if p.stage == stageWhole {
			require.Contains(t, s.small, p, name)
		}
		if p.live != nil {
			require.Zero(t, p.live.users, name)
			require.Empty(t, p.live.busy, name)
			require.Empty(t, p.live.syncing, name)
			unsynced += p.live.written.size()
		}
		switch p.stage {
		case stageNone:
			require.Empty(t, p.all(), name)
		case stagePieces:
		case stageWhole:
			unsynced += p.entry.Size
			fallthrough
		case stageFlushed, stageLinked, stageNamed, stagePublished:
			require.Empty(t, p.durable, "%s is %v", name, p.stage)
		}
		if len(p.durable) > 0 {
			require.Equal(t, loggedYes, p.logged, name)
		}
		if p.isPublished() {
			require.Nil(t, p.live, name)
			require.Nil(t, s.layers[p.entry.ID], name)
		}
	}
	require.Equal(t, unsynced, s.unsynced)
}

// Any calls in any order, with failures and power cuts anywhere, move a part only as the table says.
func TestEveryLifeOfAPartKeepsToTheTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDisk(rapid.Uint64().Draw(t, "seed"))
		d.noLinks = rapid.Bool().Draw(t, "no links")
		o := &Options{Rules: testRules, OpenParts: 1, Overwrite: rapid.Bool().Draw(t, "overwrite"), Sync: SyncPolicy(rapid.IntRange(0, 2).Draw(t, "sync"))}
		s, err := Create(d, testID, tree(), o)
		require.NoError(t, err)
		for range rapid.IntRange(1, 40).Draw(t, "calls") {
			id := rapid.SampledFrom([]uint32{2, 4, 5, 7}).Draw(t, "id")
			e := tree()[id-1]
			if rapid.IntRange(0, 3).Draw(t, "fails") == 0 {
				d.fail[d.ops+rapid.IntRange(1, 6).Draw(t, "in")] = rapid.SampledFrom([]error{syscall.EIO, syscall.ENOSPC}).Draw(t, "error")
			}
			switch call := rapid.IntRange(0, 9).Draw(t, "call"); call {
			case 0, 1:
				at := rapid.Int64Range(0, max(0, e.Size-1)).Draw(t, "at")
				_ = s.WriteAt(id, content(id, e.Size)[at:], at)
			case 2:
				_ = s.WriteAt(id, content(id, e.Size), 0)
			case 3:
				_ = s.WriteFile(id, content(id, e.Size))
			case 4:
				_ = s.Publish([]uint32{id, 2, id})
			case 5:
				_ = s.Sync()
			case 6:
				_ = s.Reset(id)
			case 7:
				_, _ = s.Existing(id)
				_ = s.Adopt(id)
			case 8:
				_ = s.SetLayer(id, 0, cv(id))
				_, _ = s.ReadAt(id, make([]byte, 10), 0)
			case 9:
				d.cutAt = max(1, d.ops+rapid.IntRange(0, 6).Draw(t, "cut in"))
				_ = s.Publish([]uint32{id})
				d.cutAt = max(1, min(d.cutAt, d.ops))
				_ = s.Close()
				if o.Sync == SyncNone {
					d = d.kill()
				} else {
					d = d.cut()
				}
				if s, err = Open(d, testID, o); err != nil {
					t.Fatalf("%v after %s", err, strings.Join(d.trace, "; "))
				}
			}
			d.fail = map[int]error{}
			requireStages(t, s)
		}
	})
}
