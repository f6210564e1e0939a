package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// safe returns text of a peer's choosing as it can be shown: without what moves the cursor, colours, or turns the direction around.
func safe(text string) string {
	return strings.Map(func(r rune) rune {
		if r != ' ' && (!unicode.IsPrint(r) || unicode.Is(unicode.Cf, r)) {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}

// escaped returns data of a peer's choosing as a terminal can show it: line ends and tabs stay, and anything else that is not printed is
// written as \x1b, \u202e or \U000e0001.
func escaped(data []byte) []byte {
	out := make([]byte, 0, len(data))
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		switch {
		case r == '\n', r == '\t', r == '\r' && len(data) > 1 && data[1] == '\n', unicode.IsPrint(r) && (r != utf8.RuneError || n > 1):
			out = append(out, data[:n]...)
		case r < utf8.RuneSelf, n == 1:
			out = fmt.Appendf(out, `\x%02x`, data[0])
		case r <= 0xffff:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = fmt.Appendf(out, `\U%08x`, r)
		}
		data = data[n:]
	}
	return out
}

// short returns text of at most n characters, with an ellipsis in its middle if it was longer.
func short(text string, n int) string {
	runes := []rune(text)
	if len(runes) <= n {
		return text
	}
	head := (n - 1) / 2
	return string(runes[:head]) + "…" + string(runes[len(runes)-(n-1-head):])
}

// size is a number of bytes on the command line: 500k, 10MB, 1.5GiB.
type size int

const mostSize = min(1e15, math.MaxInt)

var errSize = errors.New("want bytes per second, as in 500k, 10MB or 1.5MiB")

var sizeUnits = map[string]float64{
	"": 1, "b": 1, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
}

// UnmarshalText reads what a person writes.
func (s *size) UnmarshalText(text []byte) error {
	t := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(string(text))), "/s")
	digits := strings.TrimRight(t, "abcdefghijklmnopqrstuvwxyz ")
	unit, known := sizeUnits[strings.TrimSpace(t[len(digits):])]
	n, err := strconv.ParseFloat(digits, 64)
	if n *= unit; err != nil || !known || n < 1 || n > mostSize {
		return fmt.Errorf("%q: %w", text, errSize)
	}
	*s = size(n)
	return nil
}

// bytesText returns a number of bytes as people read it.
func bytesText(n float64) string {
	const units = "kMGTPE"
	if n < 999.5 {
		return fmt.Sprintf("%.0f B", n)
	}
	i := -1
	for n >= 999.5 && i < len(units)-1 {
		n /= 1000
		i++
	}
	digits := 1
	if n >= 99.95 {
		digits = 0
	}
	return fmt.Sprintf("%.*f %cB", digits, n, units[i])
}

// timeText returns a time as people read it.
func timeText(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
}

// itemsText returns "1 item" or "12 items".
func itemsText(n int) string {
	if n == 1 {
		return "1 item"
	}
	return fmt.Sprintf("%d items", n)
}

// filesText returns "1 file" or "12 files".
func filesText(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}
