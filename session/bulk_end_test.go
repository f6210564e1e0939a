package session

import (
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// On a limited carrier, the end of a bulk stream reaches the peer at once, although a Write of it has waited there in vain: it is no data.
func TestTheEndOfABulkStreamDoesNotWait(t *testing.T) {
	ends := map[string]func(*testing.T, *Stream){
		"CloseWrite after the Write": func(t *testing.T, st *Stream) {
			require.NoError(t, st.SetWriteDeadline(time.Now().Add(time.Second)))
			_, err := st.Write([]byte("x"))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.NoError(t, st.CloseWrite())
		},
		"CloseWrite during the Write": func(t *testing.T, st *Stream) {
			require.NoError(t, st.SetWriteDeadline(time.Now().Add(time.Second)))
			go func() { _, _ = st.Write([]byte("x")) }()
			synctest.Wait()
			require.NoError(t, st.CloseWrite())
		},
		"Close": func(t *testing.T, st *Stream) {
			go func() { _, _ = st.Write([]byte("x")) }()
			synctest.Wait()
			require.NoError(t, st.Close())
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}}
				r.wrap = func(_ int, here, there net.Conn) (net.Conn, net.Conn) { return scarce{here}, there }
				ended := make(chan error, 1)
				r.mux.SetStream("bulk", func(st *Stream) {
					_, err := st.Read(make([]byte, 10))
					ended <- err
				})
				r.dial(Config{}, AcceptorConfig{})
				st, err := r.dialer.OpenStream(t.Context(), "bulk", &StreamOptions{Bulk: true})
				require.NoError(t, err)
				end(t, st)
				time.Sleep(2 * time.Second)
				select {
				case err := <-ended:
					require.ErrorIs(t, err, io.EOF)
				default:
					t.Error("the peer has not seen the end")
				}
			})
		})
	}
}
