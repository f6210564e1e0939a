package transfer_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
)

// Functions of the application's that end their goroutine end no transfer, and refuse what they were asked about.
func TestHooksThatEndTheirGoroutineHangNoTransfer(t *testing.T) {
	var told atomic.Int64
	event := func(transfer.Event) {
		told.Add(1)
		runtime.Goexit()
	}
	begun := func(*transfer.Transfer) { runtime.Goexit() }
	from, take := write(t, content{"a": 10, "b": 10, "c": 10}), into(t.TempDir(), transfer.ReceiveOptions{Options: transfer.Options{OnEvent: event}}).Receive
	for name, c := range map[string]struct {
		cfg  transfer.ServiceConfig
		code transfer.Code // "": it comes through
	}{
		"OnEvent and OnBegun": {transfer.ServiceConfig{OnBegun: begun, Receive: take}, ""},
		"Admit": {transfer.ServiceConfig{Receive: take, Admit: func(string) error {
			runtime.Goexit()
			return nil
		}}, transfer.CodeDenied},
		"Receive": {transfer.ServiceConfig{Receive: func(context.Context, transfer.Incoming) (*transfer.Destination, error) {
			runtime.Goexit()
			return nil, nil
		}}, transfer.CodeDenied},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			service(t, p, &c.cfg)
			_, err := transfer.Push(t.Context(), always(p.Alice), walk(t, from), &transfer.Options{OnEvent: event}).Wait()
			if c.code == "" {
				require.NoError(t, err)
			} else {
				var e *transfer.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, c.code, e.Code)
			}
		})
	}
	p := newPair(t)
	service(t, p, into(t.TempDir(), transfer.ReceiveOptions{}))
	tree := walk(t, from)
	require.NoError(t, os.Remove(filepath.Join(from, "a")))
	require.NoError(t, os.Remove(filepath.Join(from, "b")))
	_, err := transfer.Push(t.Context(), always(p.Alice), tree, &transfer.Options{OnEvent: event}).Wait()
	require.Error(t, err)
	require.GreaterOrEqual(t, told.Load(), int64(2), "the second event is told too")
	_, err = transfer.Push(t.Context(), func(context.Context) (*session.Session, error) {
		runtime.Goexit()
		return nil, nil
	}, walk(t, from), nil).Wait()
	require.ErrorContains(t, err, "ended its goroutine")
}
