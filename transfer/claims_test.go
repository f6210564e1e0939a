package transfer_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

// wantInvalid fails unless err is one of the call itself, with a text that has words in it.
func wantInvalid(t *testing.T, err error, words string) {
	t.Helper()
	var e *transfer.Error
	require.ErrorAs(t, err, &e, words)
	require.Equal(t, transfer.CodeInvalid, e.Code, words)
	require.ErrorContains(t, err, words)
	require.NotEmpty(t, e.Op)
}

// Claim: transfer.Ref.Token
// Claim: transfer.ReceiveOptions.Tokens
// Claim: transfer.ShareOptions.Token
func TestTokensHaveAtMost64Bytes(t *testing.T) {
	p := newPair(t)
	v := service(t, p, nil)
	tree := walk(t, write(t, content{"f": 10}))
	for n, ok := range map[int]bool{0: true, 1: true, 16: true, 63: true, 64: true, 65: false, 1 << 16: false} {
		token := bytes.Repeat([]byte{7}, n)
		share, err := v.Share(tree, &transfer.ShareOptions{Token: token})
		if !ok {
			wantInvalid(t, err, "ShareOptions.Token")
			share, err = v.Share(tree, nil)
		}
		require.NoError(t, err)
		ref := share.Ref()
		_, err = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, transfer.Ref{Root: ref.Root, Token: token}, t.TempDir(), nil).Wait()
		if ok {
			require.NoError(t, err, "%d bytes", n)
		} else {
			wantInvalid(t, err, "Ref.Token")
		}
		_, err = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, transfer.Ref{Root: ref.Root}, t.TempDir(),
			&transfer.ReceiveOptions{Tokens: [][]byte{token}}).Wait()
		if ok {
			require.NoError(t, err, "%d bytes", n)
		} else {
			wantInvalid(t, err, "ReceiveOptions.Tokens[0]")
		}
		share.Close()
	}
}

func TestArgumentsThatAreNilAreErrors(t *testing.T) {
	p := newPair(t)
	service(t, p, into(t.TempDir(), transfer.ReceiveOptions{}))
	tree := walk(t, write(t, content{"f": 10}))
	_, err := transfer.Push(t.Context(), nil, tree, nil).Wait()
	wantInvalid(t, err, "dial is nil")
	_, err = transfer.Push(t.Context(), always(p.Alice), nil, nil).Wait()
	wantInvalid(t, err, "tree is nil")
	nothing := func(context.Context) (*session.Session, error) { return nil, nil }
	_, err = transfer.Push(t.Context(), nothing, tree, nil).Wait()
	wantInvalid(t, err, "neither a session nor an error")
	for words, sources := range map[string][]transfer.Dialer{
		"no source": nil, "source 0 is nil": {nil}, "source 1 is nil": {always(p.Alice), nil}, "neither a session nor an error": {nothing},
	} {
		_, err = transfer.Fetch(t.Context(), sources, transfer.Ref{}, t.TempDir(), nil).Wait()
		wantInvalid(t, err, words)
	}
	v, err := transfer.NewService(nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, v.Close()) }()
	_, err = v.Share(nil, nil)
	wantInvalid(t, err, "tree is nil")
}

// A Tree that Walk has not made has nothing in it, and sends that.
func TestAZeroTreeIsEmpty(t *testing.T) {
	p := newPair(t)
	service(t, p, into(t.TempDir(), transfer.ReceiveOptions{}))
	result, err := transfer.Push(t.Context(), always(p.Alice), new(source.Tree), nil).Wait()
	require.NoError(t, err)
	require.Zero(t, result.Progress.Files)
}

// What a caller does to a Ref is its own.
func TestTheRefOfAShareIsACopy(t *testing.T) {
	p := newPair(t)
	v := service(t, p, nil)
	given := bytes.Repeat([]byte{1}, 16)
	share, err := v.Share(walk(t, write(t, content{"f": 10})), &transfer.ShareOptions{Token: given, Many: true})
	require.NoError(t, err)
	defer share.Close()
	good := transfer.Ref{Root: share.Ref().Root, Token: bytes.Clone(share.Ref().Token)}
	share.Ref().Token[0]++
	given[0]++
	require.Equal(t, good, share.Ref())
	_, err = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, good, t.TempDir(), nil).Wait()
	require.NoError(t, err)
}
