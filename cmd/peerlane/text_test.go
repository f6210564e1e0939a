package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSafeTextMovesNoCursor(t *testing.T) {
	for text, want := range map[string]string{
		"plain ünï ☃":             "plain ünï ☃",
		"\x1b[31mred\x1b]0;t\x07": "\uFFFD[31mred\uFFFD]0;t\uFFFD",
		"a\r\nb\tc\x00":           "a\uFFFD\uFFFDb\uFFFDc\uFFFD",
		"\u202egnp.exe":           "\uFFFDgnp.exe",
		"\u009b31m\u200b\xff":     "\uFFFD31m\uFFFD\uFFFD",
		"\u2028\u2029\u00a0":      "\uFFFD\uFFFD\uFFFD",
	} {
		require.Equal(t, want, safe(text), "%q", text)
	}
}

func TestShortTextKeepsBothEnds(t *testing.T) {
	require.Equal(t, "abc", short("abc", 3))
	require.Equal(t, "a…e", short("abcde", 3))
	require.Equal(t, "ä…öß", short("äbcdeöß", 4))
}

func TestSizesAreReadAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]int{
		"1": 1, "500k": 500_000, "10MB": 10_000_000, "10 mb/s": 10_000_000, "1.5MiB": 3 << 19, "2G": 2_000_000_000, "100B": 100, "1e3": 1000,
	} {
		var s size
		require.NoError(t, s.UnmarshalText([]byte(text)), text)
		require.Equal(t, want, int(s), text)
	}
	for _, text := range []string{"", "fast", "-1", "0", "10 parsecs", "1e300", "NaN", "inf", "MB"} {
		var s size
		require.ErrorIs(t, s.UnmarshalText([]byte(text)), errSize, text)
	}
}

func TestNumbersReadWell(t *testing.T) {
	for n, want := range map[float64]string{
		0: "0 B", 999: "999 B", 999.7: "1.0 kB", 1000: "1.0 kB", 99_949: "99.9 kB", 99_951: "100 kB", 999_499: "999 kB", 999_500: "1.0 MB",
		1.5e9: "1.5 GB", 2e15: "2.0 PB", 5e21: "5000 EB",
	} {
		require.Equal(t, want, bytesText(n))
	}
	for d, want := range map[time.Duration]string{
		0: "0.0 s", 1234 * time.Millisecond: "1.2 s", 59 * time.Second: "59 s", 61 * time.Second: "1 min 01 s", 3*time.Hour + 5*time.Minute: "3 h 05 min",
	} {
		require.Equal(t, want, timeText(d))
	}
	require.Equal(t, "1 file", filesText(1))
	require.Equal(t, "0 files", filesText(0))
}

func TestAQRCodeFitsATerminal(t *testing.T) {
	text, err := qrText("plt1" + strings.Repeat("abcdefgh", 30))
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	require.LessOrEqual(t, len(lines), 31) // version 8: 49 modules and the quiet zone
	for _, line := range lines {
		line = strings.TrimSuffix(strings.TrimPrefix(line, "\x1b[30;107m"), "\x1b[0m")
		require.LessOrEqual(t, len([]rune(line)), 57)
		require.Empty(t, strings.Trim(line, " ▀▄█"))
	}
	_, err = qrText(strings.Repeat("a", 5000))
	require.Error(t, err)
}

func TestAResponseIsHarmlessOnATerminal(t *testing.T) {
	for data, want := range map[string]string{
		"": "",
		"plain text\n\twith lines\r\nof both kinds": "plain text\n\twith lines\r\nof both kinds",
		"Grüße, 世界 ☃ \uFFFD":                        "Grüße, 世界 ☃ \uFFFD",
		"\x1b]0;title\a\x1b[2J":                     `\x1b]0;title\x07\x1b[2J`,
		"over\rwritten\b\b":                         `over\x0dwritten\x08\x08`,
		"end\r":                                     `end\x0d`,
		"\x00\x7f":                                  `\x00\x7f`,
		"\u009b2J":                                  `\u009b2J`,
		"\x9b2J\xff\xc3":                            `\x9b2J\xff\xc3`,
		"a\u202eb\u2028c":                           `a\u202eb\u2028c`,
		"\U000e0001":                                `\U000e0001`,
	} {
		require.Equal(t, want, string(escaped([]byte(data))), "%q", data)
	}
}
