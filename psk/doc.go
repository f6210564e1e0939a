// Package psk admits peers that know a shared secret and seals what they say to each other.
//
// A [Key] is derived once from the secret with Argon2id. A [Keyring] holds the one or two keys in force and runs the
// handshake Noise_NNpsk0_25519_AESGCM_SHA256: one message each way, small enough to ride inside a hello and its answer.
// It ends in [Secrets], which [Seal] turns into a net.Conn whose bytes travel as AES-256-GCM records.
//
//	key, err := psk.Derive(secret, nil)              // slow on purpose: once per key, never per conn
//	ring, err := psk.NewKeyring(key)
//	initiator, err := ring.Initiate(prologue)        // send initiator.KeyID() and initiator.Message()
//	payload, secrets, err := initiator.Finish(message2)
//	conn := psk.Seal(carrier, secrets)
//
// It knows nothing of libp2p: any ordered net.Conn carries it, QUIC, WebSocket and relayed streams included. SPEC.md in
// this folder is the wire format, complete enough to write the other side in another language.
//
// # What it promises
//
// Who does not know the secret cannot finish the handshake, read a byte, or change, drop, repeat or reorder one unseen.
// Both sides hold the same prologue, or there is no conn: the caller puts into it everything that must not be tampered
// with (both Peer IDs in role order, the whole hello). The ephemeral Diffie-Hellman gives forward secrecy: a secret that
// leaks later opens no recorded conn.
//
// # What it does not promise
//
// NNpsk0 is no password-authenticated key exchange. Whoever sees one handshake can try guesses against it offline, at
// the price of one Argon2id each. Use a secret from a random source; Argon2id is a help for a poor one, no cure. And
// every holder of the secret can pose as any other: the Peer IDs in the prologue are worth what the secure channel
// below says about them.
//
// # Replays
//
// A [Keyring] remembers the last hellos it accepted (at least 4096, at most 8192, about 0.6 MiB) and answers a repeat
// with [ErrReplayed]. Only hellos that verified are remembered, so nobody without the key can push one out. An older
// replay is harmless as well: the answer holds a fresh ephemeral of the responder, the keys of the conn depend on it, and
// whoever replays knows neither private ephemeral. So the first sealed record cannot be forged, and a caller that acts
// only on what a sealed conn returned never acts on a replay.
//
// # Lifetime
//
// [Initiator], [Responder] and [Secrets] are used once; a second use matches [ErrInvalid]. A sealed conn starts no
// goroutine. Its Close sends the end record, waits at most one second for it to leave (two if the conn below ignores deadlines),
// and closes the conn below.
//
// # Deadlines
//
// Deadlines pass through to the conn below. One that passes in the middle of a record loses nothing: the half-read
// record waits for the next Read, the half-sent one leaves ahead of the next Write.
//
// # Memory
//
// An idle sealed conn holds 2.2 KiB, and 2 KiB more while a Read waits. A record that does not fit takes a 72 KiB buffer until it
// has been read: the most a peer can pin by announcing the largest record and falling silent. A Write holds a buffer of
// its own sealed size, at most 136 KiB, until it returns.
package psk
