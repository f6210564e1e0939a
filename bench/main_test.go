package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestQuickShortensTheCellUnlessCellIsGiven(t *testing.T) {
	for _, tc := range []struct {
		args []string
		cell time.Duration
	}{
		{nil, 2 * time.Second},
		{[]string{"-quick"}, 400 * time.Millisecond},
		{[]string{"-quick", "-cell", "1s"}, time.Second},
		{[]string{"-cell", "2s", "-quick"}, 2 * time.Second},
	} {
		o, err := parseOptions(tc.args, io.Discard)
		require.NoError(t, err, "%q", tc.args)
		require.Equal(t, tc.cell, o.set.Cell, "%q", tc.args)
		require.Equal(t, tc.cell/4, o.set.WarmUp, "%q", tc.args)
	}
}

func TestOptionsThatCannotRunNameTheirFlag(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"-rounds", "0"}, "-rounds 0"},
		{[]string{"-cell", "0s"}, "-cell 0s"},
		{[]string{"-cell", "-1s"}, "-cell -1s"},
		{[]string{"-payload", "ones"}, "-payload"},
		{[]string{"-only", "("}, "-only"},
		{[]string{"-only", "^$"}, "-only"},
		{[]string{"extra"}, `"extra"`},
	} {
		_, err := parseOptions(tc.args, io.Discard)
		require.ErrorContains(t, err, tc.want, "%q", tc.args)
	}
}

func TestOnlyChoosesContenders(t *testing.T) {
	o, err := parseOptions([]string{"-only", "raw|grpc"}, io.Discard)
	require.NoError(t, err)
	var names []string
	for _, c := range o.contenders() {
		names = append(names, c.Name())
	}
	require.Equal(t, []string{rawName, grpcName}, names)
}

func TestCPUProfileIsWrittenEvenIfTheRunFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cpu.prof")
	failed := errors.New("failed")
	require.ErrorIs(t, profiled(path, func() error { return failed }), failed)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Positive(t, info.Size())
}

func TestCheckFailsWhereAFloorIsNotMeasured(t *testing.T) {
	o, err := parseOptions([]string{"-check", "-only", rawName, "-rounds", "1", "-cell", "5ms"}, io.Discard)
	require.NoError(t, err)
	require.ErrorIs(t, run(o, io.Discard, io.Discard), errBelowFloor)
}
