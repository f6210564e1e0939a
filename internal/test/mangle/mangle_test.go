package mangle

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// lines are units of a kind, a number, and so many bytes as a byte says.
var lines = &Shape{
	Head: 4, Max: 255, Fields: [][2]int{{0, 1}, {1, 2}},
	Length: func(h []byte) int { return int(h[3]) },
	Set:    func(h []byte, n int) { h[3] = byte(n) },
}

func line(number int, body string) []byte {
	b := []byte{7, 0, 0, byte(len(body))}
	binary.BigEndian.PutUint16(b[1:], uint16(number))
	return append(b, body...)
}

// sent returns what becomes of the units 1, 2 and 3.
func sent(script ...byte) (all []string, cut bool) {
	s := New(script, lines)
	for i, body := range []string{"one", "two", "three"} {
		r := s.Next(line(i+1, body))
		for _, u := range r.Units {
			all = append(all, string(u))
		}
		if r.Cut {
			return all, true
		}
	}
	return all, false
}

func TestAScriptChangesWhatItSays(t *testing.T) {
	one, two, three := string(line(1, "one")), string(line(2, "two")), string(line(3, "three"))
	for name, test := range map[string]struct {
		script []byte
		want   []string
	}{
		"nothing":          {nil, []string{one, two, three}},
		"the second":       {[]byte{pass, 0, drop}, []string{one, three}},
		"the third":        {[]byte{pass, 1, drop}, []string{one, two}},
		"twice":            {[]byte{double}, []string{one, one, two, three}},
		"in another order": {[]byte{swap}, []string{two, one, three}},
		"again":            {[]byte{pass, 0, replay, 0}, []string{one, one, two, three}},
		"a number":         {[]byte{number, 1, 0xff}, []string{string(line(0, "one")), two, three}},
		"an extreme":       {[]byte{extreme, 1, 6}, []string{string(line(0xffff, "one")), two, three}},
		"a lie":            {[]byte{lie, 2}, []string{"\x07\x00\x01\x05one", two, three}},
		"a byte":           {[]byte{flip, 0, 1, 0}, []string{string(line(1, "ooe")), two, three}},
		"four bytes":       {[]byte{pass, 1, word, 0, 13}, []string{one, two, string(line(3, "\xff\xff\xff\xffe"))}},
		"short":            {[]byte{cut, 1}, []string{string(line(1, "o")), two, three}},
		"long":             {[]byte{grow, 2}, []string{string(line(1, "one\x00\x00")), two, three}},
		"one of its own":   {[]byte{forge, 2, 9, 0, 9, 0, 'h', 'i'}, []string{"\x09\x00\x09\x02hi", one, two, three}},
	} {
		got, cut := sent(test.script...)
		require.Equal(t, test.want, got, name)
		require.False(t, cut, name)
	}
	got, cut := sent(pass, 0, half, 5)
	require.Equal(t, []string{one, two[:5]}, got)
	require.True(t, cut)
	got, cut = sent(pass, 0, snap)
	require.Equal(t, []string{one}, got)
	require.True(t, cut)
	require.Equal(t, 9, New([]byte{pause, 9}, lines).Next(line(1, "")).Pause)
}

// Whatever the script, no unit gets much longer, and few are kept.
func FuzzScript(f *testing.F) {
	f.Add([]byte{pass, 3, drop, forge, 3, 1, 2, 3, 4, 'a', 'b', 'c', extreme, 0, 15}, line(1, "one"))
	f.Fuzz(func(t *testing.T, script, wire []byte) {
		s := New(script, lines)
		r := bytes.NewReader(wire)
		for {
			unit, err := lines.Read(r)
			if err != nil {
				return
			}
			for _, u := range s.Next(unit).Units {
				require.LessOrEqual(t, len(u), 4+2*255)
			}
			require.LessOrEqual(t, len(s.past), maxPast)
		}
	})
}
