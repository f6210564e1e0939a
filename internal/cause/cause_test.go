package cause

import (
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/session"
)

func TestErrorsNameTheirSide(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		by   string
		code codes.Code
	}{
		{"none", nil, Network, codes.OK},
		{"a broken conn", io.ErrUnexpectedEOF, Network, codes.OK},
		{"a session that lost its conn", &session.Error{Err: io.ErrUnexpectedEOF}, Network, codes.OK},
		{"closed", session.ErrClosed, Local, codes.OK},
		{"closed, with a code", fmt.Errorf("so: %w", &session.Error{Code: codes.Closed}), Local, codes.Closed},
		{"refused by the peer", &session.Error{Code: codes.NotAllowed, Remote: true}, Peer, codes.NotAllowed},
		{"the peer's reason below ours", &session.Error{Code: codes.GoingAway, Err: &session.Error{Code: codes.Internal, Remote: true}},
			Peer, codes.GoingAway},
		{"ours below one without a code", &session.Error{Err: &session.Error{Code: codes.Timeout}}, Local, codes.Timeout},
	} {
		by, code := Of(c.err)
		require.Equal(t, []any{c.by, c.code}, []any{by, code}, c.name)
	}
}
