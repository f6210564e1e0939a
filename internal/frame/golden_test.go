package frame

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// vectors returns the bytes of each [name] in testdata/file; # starts a comment.
func vectors(tb testing.TB, file string) map[string][]byte {
	tb.Helper()
	text, err := os.ReadFile("testdata/" + file)
	require.NoError(tb, err)
	found := map[string][]byte{}
	name := ""
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if rest, ok := strings.CutPrefix(line, "["); ok {
			name = strings.TrimSuffix(rest, "]")
			require.NotContains(tb, found, name, "vector twice in %s", file)
			found[name] = nil
			continue
		}
		b, err := hex.DecodeString(strings.ReplaceAll(line, " ", ""))
		require.NoError(tb, err, "%s [%s]: %q", file, name, line)
		found[name] = append(found[name], b...)
	}
	require.NotEmpty(tb, found, file)
	return found
}

// names returns the sorted names of a table or of vectors.
func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// A parsed is a whole frame, taken apart as its type says.
type parsed struct {
	Header
	Start   *Start
	Failure *Failure
	Credit  uint32
	Rest    []byte // body bytes: of a start, CONTINUE, STREAM_OPEN or STREAM_DATA
}

// parse takes a known frame's payload apart.
func parse(h Header, payload []byte) (parsed, error) {
	p := parsed{Header: h}
	var err error
	switch h.Type {
	case TypeRequest, TypeResponse, TypeMessage:
		var s Start
		s, p.Rest, err = ConsumeStart(payload, h.Type, h.Flags, nil)
		p.Start = &s
	case TypeError, TypeStreamReset, TypeStreamStop, TypeGoAway, TypeEnd:
		var f Failure
		f, err = ConsumeFailure(payload)
		p.Failure = &f
	case TypeStreamCredit, TypeSessionCredit, TypeSessionReturn:
		p.Credit, err = ConsumeCredit(payload)
	default:
		p.Rest = payload
	}
	p.Rest = append([]byte(nil), p.Rest...) // payload lives only until the next frame
	return p, err
}

// append lays the frame out; Header.Length is computed, not taken.
func (p parsed) append(b []byte) []byte {
	var body []byte
	if p.Start != nil {
		body = AppendStart(body, p.Type, p.Flags, *p.Start)
	}
	if p.Failure != nil {
		body = AppendFailure(body, *p.Failure)
	}
	if p.Credit != 0 {
		body = AppendCredit(body, p.Credit)
	}
	body = append(body, p.Rest...)
	p.Header.Length = len(body)
	return append(AppendHeader(b, p.Header), body...)
}

// parseAll reads all frames of src and takes them apart. The error is nil at a clean end.
func parseAll(src io.Reader) (all []parsed, err error) {
	r := NewReader(src, nil)
	for {
		h, payload, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		p, err := parse(h, payload)
		if err != nil {
			return all, err
		}
		all = append(all, p)
	}
}

// parseHello reads one hello, length included.
func parseHello(src io.Reader) (*Hello, error) {
	body, err := ReadHello(src)
	if err != nil {
		return nil, err
	}
	h, _, err := ConsumeHello(body)
	if err != nil {
		return nil, err
	}
	return h, nil
}

// The reasons of testdata/refused.hex.
var reasons = map[string]error{"malformed": ErrMalformed, "too long": ErrTooLong, "critical": ErrCritical}

func TestEveryRefusedVectorIsRefusedForItsReason(t *testing.T) {
	refused := vectors(t, "refused.hex")
	for _, name := range names(refused) {
		t.Run(name, func(t *testing.T) {
			what, reason, _ := strings.Cut(name, " -> ")
			require.Contains(t, reasons, reason)
			var err error
			if strings.HasPrefix(what, "hello: ") {
				_, err = parseHello(bytes.NewReader(refused[name]))
			} else {
				_, err = parseAll(bytes.NewReader(refused[name]))
			}
			require.ErrorIs(t, err, reasons[reason])
		})
	}
}

func TestUnknownOptionalPartsAreSkipped(t *testing.T) {
	skipped := vectors(t, "skipped.hex")
	for _, name := range names(skipped) {
		t.Run(name, func(t *testing.T) {
			src := bytes.NewReader(skipped[name])
			if strings.HasPrefix(name, "hello: ") {
				h, err := parseHello(src)
				require.NoError(t, err)
				require.Equal(t, &Hello{Kind: KindHello, Version: 1, Role: RoleSession, Limits: &Limits{}}, h)
				return
			}
			all, err := parseAll(src)
			require.NoError(t, err)
			require.Equal(t, []parsed{{Header: Header{Type: TypePing, ID: 7}}}, all)
		})
	}
}

// Every id and type of version 1's future: the rule itself, not three samples of it.
func TestOddHelloFieldsAndHighTypesAreOptionalAndAllOthersCritical(t *testing.T) {
	known := []byte{fieldRole, fieldCaps, fieldLimits, fieldSessionID, fieldName, fieldFailure, fieldAgent, fieldResumeWindow,
		fieldResume, fieldResumable, fieldNumber, fieldNoise}
	for id := 3; id < 256; id++ {
		if slices.Contains(known, byte(id)) {
			continue
		}
		h := new(Hello)
		err := h.setField(byte(id), []byte("any"))
		if id%2 == 1 {
			require.NoError(t, err, "field 0x%02x", id)
			require.Zero(t, *h, "field 0x%02x", id)
			continue
		}
		require.ErrorIs(t, err, ErrCritical, "field 0x%02x", id)
	}
	for typ := range 256 {
		b := []byte{0, 0, 0, byte(typ), 0, 0, 0, 0, 0, 0, 0, 0, 1}
		h, n, err := ConsumeHeader(b)
		require.Equal(t, HeaderSize, n)
		require.Equal(t, Header{Type: Type(typ), ID: 1}, h)
		if Type(typ).Known() || typ >= 0x80 {
			require.NoError(t, err, "type 0x%02x", typ)
			require.Equal(t, typ >= 0x80, h.Type.Optional())
			continue
		}
		require.ErrorIs(t, err, ErrCritical, "type 0x%02x", typ)
	}
}
