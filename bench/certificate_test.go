package main

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/require"
)

// handshake returns the client's view of a handshake, and its error.
func handshake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	l, err := tls.Listen("tcp", loopback+":0", server)
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Read(make([]byte, 1)) // until the client closes or refuses; its error is the one looked at
		_ = c.Close()
	}()
	defer func() {
		require.NoError(t, l.Close())
		<-ended
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), client)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	return c.ConnectionState(), c.Close()
}

func TestTLSPairVerifiesTheServer(t *testing.T) {
	ours, err := newTLSPair()
	require.NoError(t, err)
	other, err := newTLSPair()
	require.NoError(t, err)

	state, err := handshake(t, ours.server, ours.client)
	require.NoError(t, err)
	require.Equal(t, uint16(tls.VersionTLS13), state.Version)
	require.Equal(t, x509.ECDSA, state.PeerCertificates[0].PublicKeyAlgorithm)
	require.Len(t, state.VerifiedChains, 1)

	_, err = handshake(t, other.server, ours.client)
	var unverified *tls.CertificateVerificationError
	require.ErrorAs(t, err, &unverified)
}
