//go:build examples

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/record/boltstore"
)

var (
	kills = flag.Int("kills", 6, "how often a process is killed")
	seed  = flag.Uint64("seed", 0, "of what is killed when; 0: another each time")
)

// asProgram makes the test binary the program.
const asProgram = "REPLICATE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// process is the leader or the follower, which are killed and started again.
type process struct {
	t    *testing.T
	args []string
	out  *output
	cmd  *exec.Cmd
	done chan error
}

func start(t *testing.T, args ...string) *process {
	p := &process{t: t, args: args, out: new(output)}
	p.start()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() || testing.Verbose() {
			t.Logf("%s said:\n%s", args[0], p.out)
		}
	})
	return p
}

func (p *process) start() {
	p.cmd = exec.Command(os.Args[0], p.args...)
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	require.NoError(p.t, p.cmd.Start())
	p.done = make(chan error, 1)
	go func(cmd *exec.Cmd, done chan error) { done <- cmd.Wait() }(p.cmd, p.done)
}

// kill is kill -9. It reports whether the process had not ended by itself.
func (p *process) kill() bool {
	_ = p.cmd.Process.Kill()
	err := <-p.done
	p.done <- err
	var exit *exec.ExitError
	return errors.As(err, &exit) && !exit.Exited()
}

func TestKilledAtAnyTimeEachOperationIsAppliedOnceOnBothSides(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	fmt.Printf("seed %d, %d kills\n", *seed, *kills)
	random := rand.New(rand.NewPCG(*seed, 0))
	began := time.Now()

	const perKill = 250 // operations, 5.5 in a transaction and one of these in 10 ms: more than the 0.4 s until the next kill
	n := uint64(perKill * (*kills + 1))
	leaderDir, followerDir := filepath.Join(t.TempDir(), "leader"), filepath.Join(t.TempDir(), "follower")
	listen, dial := addresses(t, leaderDir)
	leader := start(t, "lead", "-dir", leaderDir, "-listen", listen, "-n", fmt.Sprint(n), "-pause", "10ms")
	follower := start(t, "follow", "-dir", followerDir, "-leader", dial)
	for i := range *kills {
		select {
		case <-time.After(time.Duration(random.IntN(400)) * time.Millisecond): // not a wait for anything: the moment of the kill
		case err := <-leader.done:
			require.Fail(t, "the leader has ended", "after %d kills: %v", i, err)
		case err := <-follower.done:
			require.Fail(t, "the follower has ended", "after %d kills: %v", i, err)
		}
		victim := leader
		if random.IntN(2) == 0 {
			victim = follower
		}
		require.True(t, victim.kill(), "kill %d of %s", i, victim.args[0])
		victim.start()
		t.Logf("%v: killed %s", time.Now().Format(time.TimeOnly), victim.args[0])
	}
	select {
	case err := <-leader.done:
		leader.done <- nil
		require.NoError(t, err)
	case <-time.After(time.Duration(30+2**kills) * time.Second):
		require.Fail(t, "the leader does not come to its end")
	}
	follower.kill() // everything is applied, and kept
	fmt.Printf("%d operations, %d kills: %v\n", n, *kills, time.Since(began).Round(time.Millisecond))

	lead, foll := open(t, leaderDir), open(t, followerDir)
	require.Equal(t, n, lead.count)
	require.Equal(t, n, foll.count)
	require.Equal(t, lead.chain, foll.chain, "other operations, or in another order")
	require.Equal(t, lead.data, foll.data)
	require.NotEmpty(t, foll.data)
	require.Zero(t, lead.outbox)
	require.Equal(t, n, foll.applied)
}

// addresses returns where the leader is to listen, a port that is free, and how that is dialed.
func addresses(t *testing.T, dir string) (listen, dial string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	require.NoError(t, os.MkdirAll(dir, 0o700))
	host, err := node.New(t.Context(), &node.Options{KeyFile: filepath.Join(dir, "key"), NoListen: true})
	require.NoError(t, err)
	defer host.Close()
	listen = fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port)
	return listen, listen + "/p2p/" + host.ID().String()
}

// database is what a side has.
type database struct {
	data    map[string]string
	count   uint64
	chain   []byte
	outbox  int
	applied uint64
}

func open(t *testing.T, dir string) (d database) {
	db, err := bbolt.Open(filepath.Join(dir, "db"), 0o600, &bbolt.Options{Timeout: 5 * time.Second})
	require.NoError(t, err)
	defer db.Close()
	d.data = make(map[string]string)
	require.NoError(t, db.View(func(tx *bbolt.Tx) error {
		d.count, d.chain = count(tx), bytes.Clone(tx.Bucket(stateKey).Get(chainKey))
		d.outbox = tx.Bucket(outboxKey).Stats().KeyN
		return tx.Bucket(dataKey).ForEach(func(k, v []byte) error { d.data[string(k)] = string(v); return nil })
	}))
	store, err := boltstore.New(db, streamName)
	require.NoError(t, err)
	place, err := store.Place()
	require.NoError(t, err)
	d.applied = place.Applied
	return d
}

func TestTheCommandSaysHowItIsUsed(t *testing.T) {
	require.ErrorContains(t, run(context.Background(), nil), "say lead or follow")
	require.ErrorContains(t, run(context.Background(), []string{"dance"}), "say lead or follow")
}

// output keeps what a process says.
type output struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *output) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(b)
}

var _ io.Writer = (*output)(nil)
