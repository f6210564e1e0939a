package transfer_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

var (
	kills    = flag.Int("kills", 6, "how often TestATransferSurvivesTheDeathOfItsProcesses kills one")
	killSize = flag.Int64("size", 64<<20, "bytes that it transfers")
	killRate = flag.Int("rate", 32<<20, "bytes per second at which it does")
)

// What a child is told.
const (
	childRole = "TRANSFER_TEST_ROLE" // "sender" or "receiver"; otherwise this is no child
	childDir  = "TRANSFER_TEST_DIR"
	childAddr = "TRANSFER_TEST_ADDR"
	childRoot = "TRANSFER_TEST_ROOT"
)

// TestChild is what the processes of TestATransferSurvivesTheDeathOfItsProcesses run, until they are killed or have received.
func TestChild(t *testing.T) {
	switch os.Getenv(childRole) {
	case "sender":
		childSends(t)
	case "receiver":
		childReceives(t)
	}
}

func childSends(t *testing.T) {
	mux := session.NewMux()
	v, err := transfer.NewService(&transfer.ServiceConfig{Options: transfer.Options{Rate: *killRate}})
	require.NoError(t, err)
	v.Handle(mux)
	tree, err := source.Walk(t.Context(), []string{os.Getenv(childDir)}, nil)
	require.NoError(t, err)
	_, err = v.Share(tree, &transfer.ShareOptions{Token: token})
	require.NoError(t, err)
	acceptor, err := session.NewAcceptor(&session.AcceptorConfig{Config: session.Config{Local: "bob", Mux: mux}})
	require.NoError(t, err)
	l, err := net.Listen("tcp", os.Getenv(childAddr))
	require.NoError(t, err)
	fmt.Println("ready")
	for {
		conn, err := l.Accept()
		require.NoError(t, err)
		go func() { _ = acceptor.Serve(conn, "alice") }() // ends with the process
	}
}

func childReceives(t *testing.T) {
	open := func(ctx context.Context, _ session.Want) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", os.Getenv(childAddr))
	}
	var last *session.Session
	dial := func(ctx context.Context) (*session.Session, error) {
		if last != nil && last.Context().Err() == nil {
			return last, nil
		}
		conn, err := open(ctx, session.Want{})
		if err != nil {
			return nil, err
		}
		last, err = session.Dial(ctx, conn, "bob", open, &session.Config{Local: "alice"})
		return last, err
	}
	root, err := hex.DecodeString(os.Getenv(childRoot))
	require.NoError(t, err)
	ref := transfer.Ref{Root: [32]byte(root), Token: token}
	o := transfer.ReceiveOptions{Verify: transfer.VerifyAll}
	got := transfer.Fetch(t.Context(), []transfer.Dialer{dial}, ref, os.Getenv(childDir), &o)
	for now := range got.Watch(t.Context(), 10*time.Millisecond) {
		fmt.Println("at", now.Verified, now.Durable, now.Resumed)
	}
	_, err = got.Wait()
	require.NoError(t, err)
	fmt.Println("complete")
	_ = last.Close()
	<-last.Done()
}

// process is a child.
type process struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

// spawn starts a child.
func spawn(t *testing.T, role, dir, addr, root string) *process {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	c := &process{cmd: exec.Command(exe, "-test.run=^TestChild$", fmt.Sprintf("-rate=%d", *killRate))}
	c.cmd.Env = append(os.Environ(), childRole+"="+role, childDir+"="+dir, childAddr+"="+addr, childRoot+"="+root)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.out = bufio.NewReader(out)
	require.NoError(t, c.cmd.Start())
	return c
}

// kill ends the child without a last word.
func (c *process) kill() {
	_ = c.cmd.Process.Kill() // it may be gone already
	_, _ = io.Copy(io.Discard, c.out)
	_ = c.cmd.Wait() // says that it was killed
}

// freeAddr returns an address on loopback that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return l.Addr().String()
}

// lossBound is what a receiver may lose that is killed: what is not synced, and a piece for each writer.
const lossBound = 64<<20 + 3*256<<10

func TestATransferSurvivesTheDeathOfItsProcesses(t *testing.T) {
	t.Parallel() // it waits for its processes
	from, to, addr := filepath.Join(t.TempDir(), "tree"), t.TempDir(), freeAddr(t)
	require.NoError(t, os.Mkdir(from, 0o755))
	random := rand.New(rand.NewPCG(*seed, 6))
	for name, size := range map[string]int64{"a": *killSize / 4, "b": *killSize/2 + 1, "c": *killSize / 4, "d": 1000} {
		f, err := os.Create(filepath.Join(from, name))
		require.NoError(t, err)
		_, err = io.CopyN(f, rand.NewChaCha8([32]byte{byte(len(name)), name[0]}), size)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	tree := walk(t, from)
	id := listed(t, tree.Entries()).Root
	root := hex.EncodeToString(id[:])
	start := map[string]func() *process{
		"sender": func() *process {
			c := spawn(t, "sender", from, addr, root)
			line, err := c.out.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "ready\n", line)
			return c
		},
		"receiver": func() *process { return spawn(t, "receiver", to, addr, root) },
	}
	running := map[string]*process{"sender": start["sender"](), "receiver": start["receiver"]()}
	defer func() {
		for _, c := range running {
			c.kill()
		}
	}()
	left, at := *kills, random.Int64N(*killSize)
	before, resumed := int64(0), int64(-1)
	for {
		line, err := running["receiver"].out.ReadString('\n')
		require.NoError(t, err)
		if line == "complete\n" {
			break
		}
		var verified, durable, had int64
		if n, _ := fmt.Sscanf(line, "at %d %d %d", &verified, &durable, &had); n < 3 {
			continue
		}
		require.LessOrEqual(t, durable, verified)
		if resumed < 0 && verified > 0 { // all that is there has been looked at
			resumed = had
			require.LessOrEqual(t, before-resumed, int64(lossBound), "too much was lost")
			if before > 0 {
				t.Logf("killed at %d, went on at %d", before, resumed)
			}
			before = 0
		}
		if left == 0 || verified < at || verified == had { // its first connection is to succeed
			continue
		}
		role := []string{"sender", "receiver"}[random.IntN(2)]
		running[role].kill()
		if role == "receiver" {
			before, resumed = verified, -1
		}
		running[role] = start[role]()
		left, at = left-1, random.Int64N(*killSize)
	}
	require.Zero(t, left)
	same(t, from, filepath.Join(to, "tree"))
	files, err := os.ReadDir(to)
	require.NoError(t, err)
	require.Len(t, files, 1)
}
