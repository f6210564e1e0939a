// Package advice says in words why a peer cannot be reached, and what helps: in a program, and at the command line.
package advice

// A Reason is why a peer can or cannot be reached.
type Reason string

// The reasons. Package peerlane finds out which one it is.
const (
	Reached        Reason = "reached"
	Invalid        Reason = "invalid"
	Self           Reason = "self"
	NoAdmission    Reason = "no-admission"
	ClientClosed   Reason = "client-closed"
	HostClosed     Reason = "host-closed"
	Cancelled      Reason = "cancelled"
	NoAddress      Reason = "no-address"
	NoGoodAddress  Reason = "no-good-address"
	Gated          Reason = "gated"
	NoSocket       Reason = "no-socket"
	NotListening   Reason = "not-listening"
	NoAnswer       Reason = "no-answer"
	NoAnswerUDP    Reason = "no-answer-udp"
	OtherNetwork   Reason = "other-network"
	OtherPeer      Reason = "other-peer"
	StaleAddress   Reason = "stale-address"
	Unreachable    Reason = "unreachable"
	NotAtRelay     Reason = "not-at-relay"
	RelayFull      Reason = "relay-full"
	RelayDenies    Reason = "relay-denies"
	RelayGone      Reason = "relay-gone"
	RelayOnly      Reason = "relay-only"
	RelaySpent     Reason = "relay-spent"
	OwnLimit       Reason = "own-limit"
	PeerLimit      Reason = "peer-limit"
	PeerFull       Reason = "peer-full"
	PeerShare      Reason = "peer-share"
	GoingAway      Reason = "going-away"
	NotServed      Reason = "not-served"
	OldPeer        Reason = "old-peer"
	OtherVersion   Reason = "other-version"
	Unsupported    Reason = "unsupported"
	PSKMismatch    Reason = "psk-mismatch"
	PSKRequired    Reason = "psk-required"
	PSKTampered    Reason = "psk-tampered"
	PSKReplayed    Reason = "psk-replayed"
	NotAllowed     Reason = "not-allowed"
	OwnHook        Reason = "own-hook"
	Silent         Reason = "silent"
	ConnectionLost Reason = "connection-lost"
	Failed         Reason = "failed"
)

// Words are the texts about a Reason.
type Words struct {
	What    string // describes the problem
	Do      string // advice for programs
	Command string // advice for the command line; if empty, Do
}

// AtCommand returns the advice for the command line.
func (w Words) AtCommand() string {
	if w.Command != "" {
		return w.Command
	}
	return w.Do
}

// Of returns the words for r. A Reason that is not known has those of Failed.
func Of(r Reason) Words {
	if w, ok := words[r]; ok {
		return w
	}
	return words[Failed]
}

var words = map[Reason]Words{
	Reached: {What: "the peer was reached"},
	Invalid: {What: "an argument is invalid", Do: "correct what the error names"},
	Self: {"the Peer ID, or the address, is this host's own", "give the two sides different keys: KeyFile of node.Options",
		"this is the own Peer ID: the two sides need different --key files"},
	NoAdmission: {What: "the client has no pre-shared key, and AdmitAll is not set",
		Do: "call UseModernPSKClient with the peer's key, or set AdmitAll of ClientConfig"},
	ClientClosed: {What: "the client is closed", Do: "make another client"},
	HostClosed:   {What: "this host is closed", Do: "make another host, and a client on it"},
	Cancelled:    {What: "the context ended before it was known", Do: "give it more time"},
	NoAddress: {"no address of the peer is known, and none was found",
		"give the host an address that the peer prints (Node.Remember), or Discovery of node.Options on both sides; check that the peer runs",
		"neither the DHT nor the local network knows it: check that it runs, with the same --dht; or give an address that it prints"},
	NoGoodAddress: {"no address of the peer can be dialed from here",
		"IPv6 link-local addresses (fe80:...) can never be dialed: give another one, and check that this host has the transports of the peer's addresses",
		"no address of the peer can be dialed from here: IPv6 link-local addresses (fe80:...) never can; give another one that it prints, or, in the local network, its Peer ID alone"},
	Gated: {"the ConnectionGater of this host refuses the peer, or its addresses", "let the ConnectionGater of the host allow them",
		"--local keeps to the networks of this machine, and the peer was not reached in them: leave it out to use others too"},
	NoSocket: {"nothing answers at the Unix domain socket",
		"check that the peer runs, and that the path is where it listens now",
		"nothing answers at this socket: check that the peer runs, and that the path is what it prints now"},
	NotListening: {What: "nothing listens at the peer's addresses: it is off, or has others now",
		Do: "check that the peer runs, that the address is what it prints now, and firewalls between"},
	NoAnswer: {"no address of the peer answers: it is off, or a firewall drops the packets",
		"check that the peer runs, its addresses, and firewalls between; if both sides are behind NATs, it needs a relay (Relays and HolePunch of node.Options)",
		"no answer, and nothing was sent: check that the peer runs, the address, and firewalls between; if both sides are behind NATs, it needs --relay, or both need --dht; peerlane doctor tells more"},
	NoAnswerUDP: {"no address of the peer answers, and all of them are of UDP, which a firewall may drop",
		"let the peer listen on TCP too, and give that address; Node.Network says whether UDP passes here; check that the peer runs",
		"no answer over UDP: a firewall may drop it, here or there: give a TCP address of the peer too; peerlane doctor says whether UDP passes here"},
	OtherNetwork: {"no address of the peer answers, and all of them are of a local network, which may be another one",
		"in another network the peer needs a relay (Relays of node.Options), or both sides Discovery; in this one, check that it runs, and firewalls",
		"all its addresses are of a local network: in another one, it needs --relay, or both sides need --dht; in this one, check that it runs, and firewalls"},
	OtherPeer: {"another peer is at that address",
		"give the address that the peer has now; if it has lost its key file, use its new Peer ID",
		"another peer is at that address: if it lost its --key FILE, its new Peer ID must be used"},
	StaleAddress: {What: "the peer does not answer where it has been reached before: the address is stale, or the peer is off",
		Do: "check that the peer runs, and give the address that it prints now"},
	Unreachable: {What: "no connection to the peer could be made",
		Do: "check that the peer runs, that the address is what it prints now, and firewalls between"},
	NotAtRelay: {"the relay answers, and the peer is not connected to it",
		"check that the peer runs, with this relay among its Relays of node.Options",
		"the relay answers, and the peer is not connected to it: check that the peer runs, with this relay as its --relay"},
	RelayFull: {"the relay has no room for another connection",
		"try again later, or raise Circuits of the relay's RelayService",
		"the relay has no room for another connection: try again later, or raise its --circuits"},
	RelayDenies: {"the relay does not allow connections from this host, or not to that peer",
		"ask who runs the relay, or give the peer another one",
		"the relay lets this peer reach nobody, or not that one: ask who runs it, or start the peer with another --relay"},
	RelayGone: {"the relay in the address does not relay now",
		"check that the relay runs, or give the peer another one",
		"the relay in the address does not relay now: check that it runs, or start the peer with another --relay, or both sides with --dht"},
	RelayOnly: {"the peer is reachable only over a relay, which the path policy refuses",
		"take the relay with AllowRelay or PreferDirect as ClientConfig.Path, or set HolePunch of node.Options on both sides; a relay with a negative Data in its RelayService has no limits",
		"the NATs let no direct path through: --allow-relay goes through the relay, as far as its limits let it; one of peerlane relay --data none has none"},
	RelaySpent: {"the relay has cut the connection: its limit for each connection is used up, or too low",
		"find a direct path (HolePunch of node.Options on both sides), or raise Data and Duration of the relay's RelayService",
		"what the relay lets through of each connection is used up, or too little: raise its --data, or use one of --data none"},
	OwnLimit: {What: "a limit of this host's resource manager is reached",
		Do: "close connections and streams, or raise the limit: Limits and ConnsPerPeer of node.Options"},
	PeerLimit: {What: "a limit of the peer's resource manager is reached",
		Do: "use fewer connections and streams at once, or raise the limit at the peer: Limits and ConnsPerPeer of its node.Options"},
	PeerFull: {"the peer has no room for more sessions, calls or memory",
		"try again later (RetryAfter of the error says when), or raise MaxConcurrentConns and MaxMemoryUsage of its ServerConfig",
		"try again later"},
	PeerShare: {"this host's share of the peer's room is used up, and others want the rest",
		"close sessions with the peer that are not needed, or try again later; MaxConcurrentConns and MaxMemoryUsage of its ServerConfig are what is shared",
		"try again later"},
	GoingAway: {What: "the peer is stopping", Do: "try again when it is back", Command: "the peer is stopping: try again when it is back"},
	NotServed: {"the peer was reached, and does not serve the tag",
		"compare the tag with what the peer serves, and check that its Server has been started",
		"the peer is there: compare --tag with what it serves"},
	OldPeer: {"the peer speaks only pointsub v0.0.2, which has neither sessions nor pre-shared keys",
		"upgrade the peer, or call it with Send and without a pre-shared key",
		"the peer is too old for a pre-shared key: upgrade it, or call it without one"},
	OtherVersion: {What: "the peer speaks another version of the protocol", Do: "upgrade the older side"},
	Unsupported:  {What: "the peer lacks something that this side needs", Do: "upgrade the peer"},
	PSKMismatch: {"the two sides have different pre-shared keys",
		"compare the secrets, and the Params, of UseModernPSKClient here and UseModernPSKServer at the peer; after a rotation, rotate this side too",
		"the two sides have different keys: compare the content of the --psk-file of both"},
	PSKRequired: {"only one side uses a pre-shared key",
		"call UseModernPSKClient here and UseModernPSKServer at the peer with the same secret, or neither",
		"only one side uses a pre-shared key: give --psk-file or --psk-env on both, or on none"},
	PSKTampered: {"the handshake was changed on the way", "do not trust this path",
		"something between the two changes what they say: do not trust this path"},
	PSKReplayed: {What: "the peer has seen this greeting before", Do: "try again"},
	NotAllowed: {"the peer does not admit this host",
		"let the peer admit it: AllowPeers of its ServerConfig with the Peer ID of this host, which a KeyFile keeps",
		"ask the peer to --allow this Peer ID, and keep it with --key FILE"},
	OwnHook: {What: "the peer was reached, and OnOpen of this side's Hooks refuses the session",
		Do: "see which error OnOpen returned, and why"},
	Silent: {What: "the peer takes connections, and did not answer in time", Do: "check that the peer is not stuck or overloaded, or give it more ConnectTimeout"},
	ConnectionLost: {What: "the connection was lost while a session was being opened",
		Do: "try again: nothing was sent; if it happens each time, look for what ends connections between the two"},
	Failed: {What: "no session could be opened", Do: "the error says why"},
}
