package peerlane

import (
	"errors"

	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/session"
)

// Sentinels of the pre-shared key, for errors.Is.
var (
	// ErrModernPSKRequired: Connect or Listen was called with neither a pre-shared key nor an explicit admission.
	ErrModernPSKRequired = errors.New("no admission policy: set a pre-shared key or AdmitAll, or AllowPeers of a ServerConfig")
	// ErrNoPSK: there is no pre-shared key to rotate or retire.
	ErrNoPSK = errors.New("no pre-shared key is in use: call UseModernPSKClient or UseModernPSKServer first")
	// ErrPSKTooLate: the key was set after sessions had been opened or served without it.
	ErrPSKTooLate = errors.New("psk must be set before the first Connect, Send, Listen or Start")
	// ErrLegacyPeer: the peer speaks only pointsub's wire, which has no sessions and cannot carry a pre-shared key.
	ErrLegacyPeer = errors.New("peer speaks only the legacy wire, which has neither sessions nor a psk")

	ErrPSKRequired = session.ErrPSKRequired
	ErrPSKMismatch = session.ErrPSKMismatch
	ErrPSKTampered = session.ErrPSKTampered
	ErrPSKReplayed = session.ErrPSKReplayed
)

// PSKOptions are for UseModernPSKClient and UseModernPSKServer. Nil is the same as the zero value.
type PSKOptions struct {
	// Params are Argon2id's. Both sides must use the same. If zero, RFC 9106's second recommendation.
	Params psk.Params
	// Previous is a second secret that is accepted too, while a rotation is under way. If nil, there is none.
	Previous []byte
}

// UseModernPSKClient makes every session of c prove and demand the knowledge of secret, and seals it: Argon2id once, here;
// then Noise NNpsk0 and AES-256-GCM on each carrier, above libp2p's own secure channel (spec 3.6, 6). From then on c
// neither calls nor falls back to peers without the key. It must come before the first Connect or Send, else it returns
// ErrPSKTooLate. A secret that is too short and invalid options are errors.
func UseModernPSKClient(c *Client, secret []byte, opts *PSKOptions) error {
	if c == nil {
		return invalidf("client: nil")
	}
	keys, err := deriveKeys(secret, opts)
	if err != nil {
		return err
	}
	return c.pool.useKeys(keys)
}

// UseModernPSKServer makes s refuse every peer that does not know secret, and seals its sessions, as UseModernPSKClient
// does; pointsub's wire is not served any more. It must come before the first Start, Handle or Listen, else it returns
// ErrPSKTooLate.
func UseModernPSKServer(s *Server, secret []byte, opts *PSKOptions) error {
	if s == nil {
		return invalidf("server: nil")
	}
	keys, err := deriveKeys(secret, opts)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tags) > 0 {
		return ErrPSKTooLate
	}
	s.keys = keys
	return nil
}

// RotateModernPSK makes new sessions of c offer secret. The key in use until now is still accepted, and the one before it no more. It returns
// ErrNoPSK when c has no key.
func (c *Client) RotateModernPSK(secret []byte, opts *PSKOptions) error {
	return rotate(c.pool.currentKeys(), secret, opts)
}

// RotateModernPSK is Client.RotateModernPSK for a server. Rotate the servers first, then the clients.
func (s *Server) RotateModernPSK(secret []byte, opts *PSKOptions) error {
	return rotate(s.currentKeys(), secret, opts)
}

func (s *Server) currentKeys() *psk.Keyring {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys
}

func rotate(keys *psk.Keyring, secret []byte, opts *PSKOptions) error {
	if keys == nil {
		return ErrNoPSK
	}
	if opts == nil {
		opts = &PSKOptions{}
	}
	if opts.Previous != nil {
		return invalidf("PSKOptions.Previous: a rotation keeps the key that was in use")
	}
	key, err := psk.Derive(secret, &opts.Params)
	if err != nil {
		return err
	}
	return keys.Rotate(key)
}

// RetireModernPSK ends a rotation: from now on c accepts the current key only, for new sessions and for the further carriers of those that
// are open. Open sessions keep their carrier. One whose peer does not offer the current key ends with ErrPSKMismatch when it needs another,
// so retire a key when all peers have rotated. It returns ErrNoPSK when c has no key.
func (c *Client) RetireModernPSK() error { return retire(c.pool.currentKeys()) }

// RetireModernPSK is Client.RetireModernPSK for a server.
func (s *Server) RetireModernPSK() error { return retire(s.currentKeys()) }

func retire(keys *psk.Keyring) error {
	if keys == nil {
		return ErrNoPSK
	}
	keys.Retire()
	return nil
}

// deriveKeys returns the keyring of secret and of the one before it.
func deriveKeys(secret []byte, opts *PSKOptions) (*psk.Keyring, error) {
	if opts == nil {
		opts = &PSKOptions{}
	}
	key, err := psk.Derive(secret, &opts.Params)
	if err != nil {
		return nil, err
	}
	if opts.Previous == nil {
		return psk.NewKeyring(key)
	}
	previous, err := psk.Derive(opts.Previous, &opts.Params)
	if err != nil {
		return nil, err
	}
	return psk.NewKeyring(key, previous)
}
