package oldsession_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// reading is what has come of a lane.
type reading struct {
	got []byte
	err error
}

// ends is what two sides have made of an end: it says what was lost, and does not judge that.
type ends struct {
	mu       sync.Mutex
	readings map[string]reading // by lane
}

// read reads a lane to its end, slowly.
func (e *ends) read(st lane, name string) {
	r := reading{}
	b := make([]byte, 4<<10)
	for r.err == nil {
		var n int
		n, r.err = st.Read(b)
		r.got = append(r.got, b[:n]...)
		time.Sleep(time.Millisecond)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.readings[name] = r
}

// all returns what has come.
func (e *ends) all() map[string]reading {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.readings)
}

func (e *ends) String() string {
	var all []string
	for name, r := range e.all() {
		all = append(all, fmt.Sprintf("%s: %d bytes, then %v", name, len(r.got), r.err))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

const written = 60_000

// conversation writes to every lane from both sides and closes it, sends messages, and leaves calls in flight. What it returns
// has come at the ends of lanes that were closed; the count of messages is that of each side.
func conversation(t *testing.T, w *world) (*ends, int) {
	t.Helper()
	e := &ends{readings: map[string]reading{}}
	for _, way := range w.ways() {
		way.to.stream = func(st lane, name string) { e.read(st, name) }
		way.to.message = func(body []byte) error {
			time.Sleep(time.Millisecond)
			way.to.mu.Lock()
			defer way.to.mu.Unlock()
			way.to.messages = append(way.to.messages, bytes.Clone(body))
			return nil
		}
	}
	const messages = 50
	var wg sync.WaitGroup
	for name, way := range w.ways() {
		for i := range messages {
			require.NoError(t, way.from.send(t.Context(), "", fmt.Appendf(nil, "%d", i)))
		}
		for _, kind := range kinds {
			if kind == "shared" || name == "from alice" {
				wg.Go(func() {
					st, err := way.from.open(t.Context(), kind, kind+" "+name)
					if err == nil {
						err = pour(st, pattern(9, written))
					}
					if err == nil {
						err = closeOf(st)
					}
					if err != nil {
						t.Errorf("%s %s: %v", kind, name, err)
					}
				})
			}
		}
	}
	wg.Wait()
	return e, messages
}

// Whatever the order in which the sides end a session, what arrives is a beginning of what was sent, an end in order comes only
// after all of it, and what was not handled is told to who has sent it. How much arrives is logged: that is not the same in
// every version.
//
// Row: T7
func TestEndsOfOldAndNewAreTrue(t *testing.T) {
	orders := map[string]func(w *world){
		"alice closes": func(w *world) { w.alice.close() },
		"bob closes":   func(w *world) { w.bob.close() },
		"both close": func(w *world) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				w.bob.close()
			}()
			w.alice.close()
			<-done
		},
		"alice closes, a little later bob": func(w *world) {
			time.AfterFunc(1500*time.Microsecond, w.bob.close)
			w.alice.close()
		},
		"alice drains":                 func(w *world) { w.alice.drain() },
		"bob drains":                   func(w *world) { w.bob.drain() },
		"both drain":                   func(w *world) { w.alice.drain(); w.bob.drain() },
		"alice drains, and bob closes": func(w *world) { w.alice.drain(); w.bob.close() },
		"bob drains, and alice closes": func(w *world) { w.bob.drain(); w.alice.close() },
		"all is cut, and alice closes": func(w *world) { w.cut(); w.alice.close() },
		"all is cut, and bob closes":   func(w *world) { w.cut(); w.bob.close() },
		"alice closes, and all is cut": func(w *world) {
			time.AfterFunc(1500*time.Microsecond, w.cut)
			w.alice.close()
		},
		"bob closes, and all is cut": func(w *world) {
			time.AfterFunc(1500*time.Microsecond, w.cut)
			w.bob.close()
		},
	}
	for name, order := range orders {
		t.Run(name, func(t *testing.T) {
			each(t, terms{link: delayed}, func(t *testing.T, w *world) {
				e, messages := conversation(t, w)
				var calls sync.WaitGroup
				for name, way := range w.ways() {
					calls.Go(func() {
						got, err := way.from.call(t.Context(), "echo", []byte("last"))
						if err == nil && string(got) != "last" {
							t.Errorf("%s: %q came back", name, got)
						}
					})
				}
				time.Sleep(2 * time.Millisecond)
				began := time.Now()
				order(w)
				<-w.alice.done()
				<-w.bob.done()
				calls.Wait()
				require.Less(t, time.Since(began), 5*time.Minute)
				time.Sleep(5 * time.Minute) // what was closed may still be under way
				t.Logf("after %v: %v, %v\n%v", time.Since(began), w.alice.err(), w.bob.err(), e)
				for lane, r := range e.all() {
					require.True(t, bytes.HasPrefix(pattern(9, written), r.got), lane)
					if r.err == io.EOF {
						require.Equal(t, written, len(r.got), "an end in order of %s", lane)
					}
				}
				for name, way := range w.ways() {
					handled, _ := way.to.taken()
					_, failures := way.back.taken()
					t.Logf("%s: %d messages handled, %d told of", name, len(handled), len(failures))
					require.GreaterOrEqual(t, len(handled)+len(failures), messages, name)
					for i, m := range handled {
						require.Equal(t, fmt.Sprint(i), string(m), name)
					}
				}
			})
		})
	}
}

// What a frozen peer loses at an end is frozen too: a Close drops the messages that the other side has not handled, and what it
// has not read of dedicated streams. Later versions lose less; between them and an old peer this remains.
func TestTwoOldSidesLoseWhatIsUnreadAtTheirEnd(t *testing.T) {
	testKey()
	for _, closer := range []string{"alice", "bob"} {
		t.Run(closer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := meet(t, terms{link: delayed, oldAlice: true, oldBob: true})
				e, messages := conversation(t, w)
				if closer == "alice" {
					w.alice.close()
				} else {
					w.bob.close()
				}
				<-w.alice.done()
				<-w.bob.done()
				time.Sleep(time.Minute)
				for name, way := range w.ways() {
					handled, _ := way.to.taken()
					_, failures := way.back.taken()
					require.Less(t, len(handled), messages, name)
					require.Equal(t, messages, len(failures), name)
				}
				dedicated := e.all()["dedicated from alice"]
				require.Less(t, len(dedicated.got), written)
				require.NotEqual(t, io.EOF, dedicated.err)
			})
		})
	}
}
