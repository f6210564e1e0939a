package ticket

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestATicketSurvivesPasting(t *testing.T) {
	want := sample(t)
	text := encoded(t, want)
	for _, pasted := range []string{
		text, " " + text + "\r\n", strings.ToUpper(text), `"` + text + `"`, "'" + text + "',", "`" + text + "`", "<" + text + ">",
		"“" + text + "”.", "«" + text + "»", "「" + text + "」", "*" + text + "*", "(" + text + ")",
		text[:70] + "\n" + text[70:140] + "\r\n  " + text[140:], text[:9] + "\u200b" + text[9:], "\ufeff" + text,
		"ticket   " + text, "Ticket: " + text, "get it   peerlane get " + text, "$ peerlane get " + text, "peerlane get '" + text + "'", "> ticket " + text,
		text[:1] + strings.ToUpper(text[1:20]) + text[20:], strings.Join(strings.Split(text, ""), "\u00a0"),
	} {
		got, err := Parse(pasted)
		require.NoError(t, err, "%q", pasted)
		require.Equal(t, want, got, "%q", pasted)
	}
}

// Claim: ticket.ErrDamaged, ticket.ErrNotTicket, ticket.ErrVersion
func TestParseSaysWhatIsWrong(t *testing.T) {
	text := encoded(t, sample(t))
	for _, test := range []struct {
		text string
		want error
		says string
	}{
		{"", ErrNotTicket, "empty"},
		{"  \n\"\"", ErrNotTicket, "empty"},
		{"hello", ErrNotTicket, "begins with plt1"},
		{"/ip4/192.0.2.7/tcp/4001/p2p/" + alice, ErrNotTicket, "begins with plt1"},
		{"plt", ErrNotTicket, ""},
		{"plt0" + text[4:], ErrNotTicket, ""},
		{"plx1" + text[4:], ErrNotTicket, ""},
		{text[1:], ErrNotTicket, ""},
		{strings.Repeat(" ", maxText) + text, ErrNotTicket, "too many"},
		{"plt2" + text[4:], ErrVersion, "update peerlane"},
		{"plt9" + strings.Repeat("!", 20), ErrVersion, "update peerlane"},
		{"plt1", errCutOff, "first 4 characters"},
		{text[:10], errCutOff, "the first 10 of its"},
		{text[:len(text)-1], errCutOff, ""},
		{text + "a", errExcess, ""},
		{text + text[4:], errExcess, ""},
		{text + text, errCharacter, "'1'"},
		{text[:20] + "0" + text[21:], errCharacter, `'0', character 21`},
		{text[:20] + "…" + text[21:], errCharacter, "…"},
		{text[:20] + "\x1b[31m" + text[21:], errCharacter, `\x1b`},
		{text[:20] + "\xff" + text[21:], errCharacter, ""},
		{text[:60] + swap(text[60:62]) + text[62:], errChecksum, "copy it again"},
		{"plt1zzzz" + text[8:], errChecksum, ""},
	} {
		_, err := Parse(test.text)
		require.ErrorIs(t, err, test.want, "%q", test.text)
		require.ErrorContains(t, err, test.says, "%q", test.text)
		require.Equal(t, errors.As(test.want, new(damage)), errors.Is(err, ErrDamaged), "%q", test.text)
		require.NotContains(t, err.Error(), text[20:40], "the token is a secret")
	}
}

// swap returns two characters the other way round.
func swap(two string) string { return two[1:] + two[:1] }

const letters = "abcdefghijklmnopqrstuvwxyz0123456789-._~ "

func TestEveryChangeOfOneCharacterIsFound(t *testing.T) {
	text := encoded(t, sample(t))
	for i := range text {
		for _, c := range letters {
			changed := text[:i] + string(c) + text[i+1:]
			if changed == text {
				continue
			}
			_, err := Parse(changed)
			require.Error(t, err, "%d: %q", i, c)
			if i >= len(prefix) && strings.ContainsRune(digits, c) {
				require.ErrorIs(t, err, errChecksum, "also in the length: %d: %q", i, c)
			}
		}
		_, err := Parse(text[:i] + text[i+1:])
		require.Error(t, err, "without %d", i)
		_, err = Parse(text[:i] + "a" + text[i:])
		require.Error(t, err, "with one more at %d", i)
	}
}

func TestEverySwapOfNeighboursIsFound(t *testing.T) {
	text := encoded(t, sample(t))
	for i := range len(text) - 1 {
		changed := text[:i] + swap(text[i:i+2]) + text[i+2:]
		if changed != text {
			_, err := Parse(changed)
			require.Error(t, err, "%d", i)
			if i >= len(prefix) {
				require.ErrorIs(t, err, errChecksum, "also in the length: %d", i)
			}
		}
	}
}

func TestEveryTruncationIsFound(t *testing.T) {
	text := encoded(t, sample(t))
	for n := range text {
		_, err := Parse(text[:n])
		require.Error(t, err, "%d", n)
		if n >= len(prefix) {
			require.ErrorIs(t, err, errCutOff, "%d", n)
		}
	}
}
