package record_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

// A wire that falls silent while a stream opens costs the time of the silence, whenever it begins, and whatever the hook says.
func TestAnOpenOutlivesASilentWire(t *testing.T) {
	for name, hook := range map[string]func(record.AcceptInfo) (*record.Options, error){
		"accepted": func(record.AcceptInfo) (*record.Options, error) { return &record.Options{Store: newShelf()}, nil },
		"refused":  func(record.AcceptInfo) (*record.Options, error) { return nil, errors.New("no") },
	} {
		for at := range 8 {
			for _, silence := range []time.Duration{7 * time.Second, 9 * time.Second, 40 * time.Second} {
				t.Run(fmt.Sprint(name, at, silence), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						h := newHighway(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{})
						record.Handle(h.ToBob, "log", hook, func(s *record.Stream) {
							_ = record.Apply(t.Context(), s, func(context.Context, record.Record) error { return nil }, nil)
						})
						opened := make(chan error)
						go func() {
							s, err := record.Open(t.Context(), h.Alice, "log", &record.Options{HandshakeTimeout: time.Minute})
							if err == nil {
								_, err = s.WriteRecord(t.Context(), []byte("x"))
							}
							if err == nil {
								err = s.Barrier(t.Context())
							}
							if err == nil {
								err = s.Close()
							}
							opened <- err
						}()
						time.Sleep(time.Duration(at) * time.Millisecond / 2)
						h.freeze(silence)
						err := <-opened
						if name == "accepted" {
							require.NoError(t, err)
						} else {
							require.ErrorIs(t, err, record.ErrNotTaken)
						}
					})
				})
			}
		}
	}
}

// freeze silences every link there is, and those to come, for d.
func (h *highway) freeze(d time.Duration) {
	h.Freeze()
	time.Sleep(d)
	h.Thaw()
}

// An opener that says nothing on a wire that is well is given up in time.
func TestASilentOpenerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHighway(t, peerlanetest.SessionsOptions{}, session.Config{})
		record.Handle(h.ToBob, "log", nil, func(*record.Stream) { panic("it is no stream") })
		st, err := h.Alice.OpenStream(t.Context(), "log", nil)
		require.NoError(t, err)
		began := time.Now()
		_, err = st.Read(make([]byte, 1))
		require.Error(t, err)
		require.Equal(t, 5*time.Second, time.Since(began))
		_ = st.Close()
	})
}
