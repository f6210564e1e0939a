package peerlane

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/peerlane/peerlane/internal/test/testnet"
)

func sshKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	return signer
}

// serveSSH runs one ssh connection that echoes every channel. It returns when the client leaves.
func serveSSH(c net.Conn, key ssh.Signer, permissions *ssh.Permissions) error {
	config := &ssh.ServerConfig{PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) {
		return permissions, nil
	}}
	config.AddHostKey(key)
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return err
	}
	go ssh.DiscardRequests(requests)
	var echoing sync.WaitGroup
	for open := range channels {
		ch, requests, err := open.Accept()
		if err != nil {
			return err
		}
		go ssh.DiscardRequests(requests)
		echoing.Go(func() {
			_, _ = io.Copy(ch, ch)
			_, _ = ch.CloseWrite(), ch.Close()
		})
	}
	echoing.Wait()
	return conn.Close()
}

// sshEcho sends data through a channel of its own and returns what comes back.
func sshEcho(client *ssh.Client, data []byte) ([]byte, error) {
	ch, requests, err := client.OpenChannel("echo", nil)
	if err != nil {
		return nil, err
	}
	go ssh.DiscardRequests(requests)
	wrote := make(chan error, 1)
	go func() {
		_, err := ch.Write(data)
		wrote <- errors.Join(err, ch.CloseWrite())
	}()
	got, err := io.ReadAll(ch)
	return got, errors.Join(err, <-wrote)
}

func TestSSHRunsOverConnsAndChecksKnownHosts(t *testing.T) {
	onEach(t, httpPaths(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{AddrStyle: AddrPeerPort})
		key := sshKey(t)
		served := make(chan error, 1)
		go func() {
			c, err := l.Accept()
			if err == nil {
				err = serveSSH(c, key, nil)
			}
			served <- err
		}()

		address := b.ID().String() + ":22"
		file := filepath.Join(t.TempDir(), "known_hosts")
		line := knownhosts.Line([]string{knownhosts.Normalize(address)}, key.PublicKey())
		require.NoError(t, os.WriteFile(file, []byte(line+"\n"), 0o600))
		known, err := knownhosts.New(file)
		require.NoError(t, err)

		d := &Dialer{Host: a, Tag: testTag, AddrStyle: AddrPeerPort}
		c, err := d.DialContext(testContext(t), "tcp", address)
		require.NoError(t, err)
		conn, channels, requests, err := ssh.NewClientConn(c, address, &ssh.ClientConfig{
			User: "u", Auth: []ssh.AuthMethod{ssh.Password("p")}, HostKeyCallback: known,
		})
		require.NoError(t, err)
		client := ssh.NewClient(conn, channels, requests)

		sent := noise(1 << 20)
		var sessions sync.WaitGroup
		for range 4 {
			sessions.Go(func() {
				got, err := sshEcho(client, sent)
				if err != nil || !bytes.Equal(sent, got) {
					t.Errorf("echo: %d of %d bytes, %v", len(got), len(sent), err)
				}
			})
		}
		sessions.Wait()
		require.NoError(t, client.Close())
		require.NoError(t, within(t, patience, "server", func() error { return ignoreClosed(<-served) }))
	})
}

// ignoreClosed drops the error of closing what the other side has closed first.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// The source-address permission of ssh wants a *net.TCPAddr, which a Peer ID is not.
func TestSSHChecksTheSourceAddressOfASocket(t *testing.T) {
	for source, allowed := range map[string]bool{"127.0.0.0/8": true, "10.0.0.0/8": false} {
		t.Run(source, func(t *testing.T) {
			a, b := testnet.Pair(t, testnet.TCPTLS)
			l := mustListen(t, b, testTag, ListenConfig{AddrStyle: AddrSocket})
			key := sshKey(t)
			served := make(chan error, 1)
			go func() {
				c, err := l.Accept()
				if err == nil {
					err = serveSSH(c, key, &ssh.Permissions{CriticalOptions: map[string]string{"source-address": source}})
					_ = c.Close()
				}
				served <- err
			}()
			c, err := Dial(testContext(t), a, b.ID(), testTag)
			require.NoError(t, err)
			conn, channels, requests, err := ssh.NewClientConn(c, "peer:22", &ssh.ClientConfig{
				User: "u", Auth: []ssh.AuthMethod{ssh.Password("p")}, HostKeyCallback: ssh.FixedHostKey(key.PublicKey()),
			})
			require.Equal(t, allowed, err == nil, "%v", err)
			if allowed {
				require.NoError(t, ssh.NewClient(conn, channels, requests).Close())
			}
			require.NoError(t, c.Close())
			<-served
		})
	}
}
