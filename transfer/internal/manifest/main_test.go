package manifest

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return b
}

// requireCode sees that err is an *Error with the code, and text for people.
func requireCode(t testing.TB, code fault.Code, err error, msg ...any) {
	t.Helper()
	var e *fault.Error
	require.ErrorAs(t, err, &e, msg...)
	require.Equal(t, code, e.Code, append([]any{err}, msg...)...)
	require.NotEmpty(t, e.Text)
	require.Less(t, len(e.Error()), 1200, "an error is a sentence")
}

// codeOf returns the code of err, "" for none.
func codeOf(err error) fault.Code {
	if e := (*fault.Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func file(id uint32, path string) Entry {
	return Entry{ID: id, Kind: KindFile, Path: path, Perm: 0o644}
}

func dir(id uint32, path string) Entry { return Entry{ID: id, Kind: KindDir, Path: path, Perm: 0o755} }
func link(id uint32, path, target string) Entry {
	return Entry{ID: id, Kind: KindSymlink, Path: path, Target: target}
}

// check adds entries until one is not taken.
func check(t testing.TB, rules Rules, entries ...Entry) error {
	t.Helper()
	c, err := NewChecker(rules)
	require.NoError(t, err)
	for i, e := range entries {
		if err := c.Add(e); err != nil {
			require.Equal(t, err, c.Add(file(1<<30, "zzz")), "what has failed stays so")
			return err
		}
		require.Equal(t, i+1, c.Entries())
	}
	return nil
}
