package bulk

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/session"
)

func TestArgumentsThatAreNilAreErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := Open(t.Context(), nil, "x", nil)
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, "session is nil")
		p := newPair(t, faultnet.LinkOptions{}, session.Config{})
		Handle(p.toBob, "x", nil, func(*Lane) {})
		l, err := Open(t.Context(), p.alice, "x", nil)
		require.NoError(t, err)
		require.NoError(t, l.Close())
		Handle(p.toBob, "x", nil, nil)
		_, err = Open(t.Context(), p.alice, "x", nil)
		require.ErrorIs(t, err, ErrNotTaken, "nothing serves it")
	})
}
