package session

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// A GOAWAY with any code leaves no work of this side without its outcome, whether or not this side is closing.
func TestWorkHasAnOutcomeWhateverTheCodeOfGoAway(t *testing.T) {
	for _, code := range []codes.Code{codes.OK, codes.NotAllowed, codes.Internal, codes.ReplyTooLarge, codes.Application, codes.Timeout,
		codes.Unavailable, 60000} {
		for _, ending := range []string{"", "close", "drain"} {
			t.Run(code.String()+" "+ending, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					w := mute(t, AcceptorConfig{}, func(frame.Header) {})
					w.s.cfg.Mux.SetDefaultStream(func(st *Stream) {
						_, _ = st.Write([]byte("never acknowledged"))
						_, err := st.Read(make([]byte, 1))
						t.Log("read", err)
						require.Error(t, err)
						require.NotEqual(t, "EOF", err.Error())
					})
					w.push(frame.TypeStreamOpen, 0, 1, []byte("x"))
					require.NoError(t, w.s.Send(t.Context(), "m", nil))
					errs := make(chan error, 2)
					for range 2 {
						go func() {
							_, err := w.s.Call(context.Background(), "c", nil)
							errs <- err
						}()
						synctest.Wait()
					}
					closed := make(chan error, 1)
					switch ending {
					case "close":
						go func() { closed <- w.s.Close() }()
					case "drain":
						go func() { closed <- w.s.Shutdown(context.Background()) }()
					}
					synctest.Wait()
					began := time.Now()
					w.push(frame.TypeGoAway, 0, 4, frame.AppendFailure(nil, frame.Failure{Code: code, Text: "so"}))
					<-w.s.Done()
					t.Log(time.Since(began), w.s.Err(), <-errs, <-errs)
					if ending == "" {
						go func() { closed <- w.s.Close() }()
					}
					err := <-closed
					t.Log("close:", err)
					require.Error(t, err)
					require.ErrorContains(t, err, `"m"`)
				})
			})
		}
	}
}
