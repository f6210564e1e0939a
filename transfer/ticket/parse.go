package ticket

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Parse returns the ticket in a text. It accepts text around the ticket from pasting: blanks, quotes, line breaks, and the words that
// peerlane send prints before it (spec 3.2). The error matches one of this package's, and never contains the text, most of which is secret.
func Parse(text string) (Ticket, error) {
	text, err := clean(text)
	if err != nil {
		return Ticket{}, err
	}
	b, err := decode(text)
	if err != nil {
		return Ticket{}, err
	}
	if err := checkBytes(b, text); err != nil {
		return Ticket{}, err
	}
	t, err := consume(b[2 : len(b)-sumSize])
	if err != nil {
		return Ticket{}, err
	}
	if again, err := t.bytes(); err != nil || !bytes.Equal(again, b) { // spec 2.7
		return Ticket{}, malformedf("it is not as peerlane writes it")
	}
	return t, nil
}

// maxText is the length of the longest accepted text: a ticket with as many blanks.
const maxText = 4 * maxBytes

// clean removes everything around the ticket, and lowers the case.
func clean(text string) (string, error) {
	if len(text) > maxText {
		return "", fmt.Errorf("%w: %d bytes are too many", ErrNotTicket, len(text))
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) { // Cf: marks of direction, joiners, soft hyphens
			return -1
		}
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, text)
	text = strings.TrimFunc(text, isAround)
	for i := 0; i < len(words); i++ {
		if rest, found := strings.CutPrefix(text, words[i]); found {
			text, i = strings.TrimLeftFunc(rest, isAround), -1
		}
	}
	return text, nil
}

// words are the words before a ticket in the line that it was copied from, without blanks.
var words = []string{"ticket", "getit", "peerlane", "get", "$"}

// isAround reports whether r is a character around a quotation, or after it.
func isAround(r rune) bool {
	return unicode.In(r, unicode.Pi, unicode.Pf, unicode.Ps, unicode.Pe) || strings.ContainsRune("\"'`<>.,;:*_", r)
}

// decode returns the bytes of a clean text. A text that was cut off may end anywhere.
func decode(text string) ([]byte, error) {
	rest, found := strings.CutPrefix(text, name)
	switch {
	case text == "":
		return nil, fmt.Errorf("%w: it is empty", ErrNotTicket)
	case !found || rest == "" || rest[0] < '1' || rest[0] > '9':
		return nil, fmt.Errorf("%w: a ticket begins with %s", ErrNotTicket, prefix)
	case rest[0] != prefix[len(name)]:
		return nil, ErrVersion
	}
	rest = rest[1:]
	for i, r := range rest {
		if (r < 'a' || r > 'z') && (r < '2' || r > '7') {
			return nil, fmt.Errorf("%w: %q, character %d", errCharacter, r, len(prefix)+i+1)
		}
	}
	if n := len(rest) % 8; n == 1 || n == 3 || n == 6 {
		rest = rest[:len(rest)-1] // it encodes no whole byte: spec 2.2 detects that the text is cut off or too long
	}
	b, err := alphabet.DecodeString(rest)
	if err != nil {
		panic("BUG: " + err.Error()) // all its characters are of the alphabet
	}
	return b, nil
}

// checkBytes checks the length and checksum of the bytes that decode returned for a text.
func checkBytes(b []byte, text string) error {
	chars := len(text)
	if len(b) < 2 {
		return fmt.Errorf("%w: these are its first %d characters", errCutOff, chars)
	}
	length := int(binary.BigEndian.Uint16(b))
	want := len(prefix) + alphabet.EncodedLen(length)
	switch {
	case isWhole(b, text):
		return nil
	case length < minSize || length > maxBytes: // the length itself was changed
		return errChecksum
	case chars == want || isChangedLength(text):
		return errChecksum
	case chars < want:
		return fmt.Errorf("%w: these are the first %d of its %d characters", errCutOff, chars, want)
	}
	return fmt.Errorf("%w: it has %d characters, and these are %d", errExcess, want, chars)
}

// isWhole reports whether b, decoded from text, matches its length and checksum, and whether the unused bits are zero (spec 3.1).
func isWhole(b []byte, text string) bool {
	n := len(b) - sumSize
	return len(b) >= minSize && len(b) <= maxBytes && int(binary.BigEndian.Uint16(b)) == len(b) &&
		binary.BigEndian.Uint32(b[n:]) == checksum(b[:n]) && alphabet.EncodeToString(b) == text[len(prefix):]
}

// lengthChars is how many characters encode the length. Some bits of the last one belong to the root.
const lengthChars = 4

// isChangedLength reports whether a ticket is complete and only its length was changed: whether another character there, or two exchanged
// ones, make it valid.
func isChangedLength(text string) bool {
	chars := []byte(text)
	is := func() bool {
		b, err := decode(string(chars))
		return err == nil && isWhole(b, string(chars))
	}
	for i := len(prefix); i < min(len(prefix)+lengthChars, len(chars)); i++ {
		was := chars[i]
		for _, chars[i] = range []byte(digits) {
			if is() {
				return true
			}
		}
		chars[i] = was
		if i+1 < len(chars) {
			chars[i], chars[i+1] = chars[i+1], chars[i]
			if is() {
				return true
			}
			chars[i], chars[i+1] = chars[i+1], chars[i]
		}
	}
	return false
}

// consume returns the ticket whose bytes are b, without length and checksum (spec 2.1).
func consume(b []byte) (t Ticket, err error) {
	r := reader{b: b}
	copy(t.Root[:], r.next(32))
	n := r.byte()
	if n > maxToken {
		return t, malformedf("a token of %d bytes", n)
	}
	t.Token = bytes.Clone(r.next(n))
	if n = r.byte(); n == 0 || n > maxSources {
		return t, malformedf("%d sources", n)
	}
	for range n {
		source, err := r.source()
		if err != nil {
			return t, err
		}
		t.Sources = append(t.Sources, source)
	}
	if r.short || len(r.b) > 0 {
		return t, malformedf("its parts are longer or shorter than it")
	}
	return t, nil
}

// reader takes bytes from the front of b. If there are too few, it returns none and sets short.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) next(n int) []byte {
	if n > len(r.b) {
		r.b, r.short = nil, true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() int {
	if b := r.next(1); b != nil {
		return int(b[0])
	}
	return 0
}

// source reads a source (spec 2.4).
func (r *reader) source() (info peer.AddrInfo, err error) {
	var id []byte
	if n := r.byte(); n == 0 {
		id = append([]byte(ed25519ID), r.next(32)...)
	} else if id = r.next(n); n > maxID {
		return info, malformedf("a peer ID of %d bytes", n)
	}
	if r.short {
		return info, malformedf("its parts are longer than it")
	}
	if info.ID, err = peer.IDFromBytes(id); err != nil {
		return info, malformedf("no peer ID: %v", err)
	}
	n := r.byte()
	if n > maxAddrs {
		return info, malformedf("%d addresses of a source", n)
	}
	for range n {
		a, err := ma.NewMultiaddrBytes(r.next(r.byte()))
		if err != nil {
			return info, malformedf("no address: %v", err)
		}
		info.Addrs = append(info.Addrs, a)
	}
	return info, nil
}
