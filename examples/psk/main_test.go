//go:build examples

package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheExamplePrintsWhatItSays(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out))
	require.Equal(t, ""+
		"right key: the plans, sealed: true\n"+
		"wrong key: refused\n"+
		"no key: refused\n", out.String())
}
