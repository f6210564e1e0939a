package main

import (
	"strings"

	"rsc.io/qr"
)

// quiet is how many modules a QR code has free around it. The standard says 4; on a terminal, 2 are enough and leave it smaller.
const quiet = 2

// qrText returns a QR code for a terminal, two modules in the height of a line, black on white whatever the terminal's colours are. A
// ticket in capitals takes three quarters of the bits (ticket spec 3.1).
func qrText(ticket string) (string, error) {
	code, err := qr.Encode(strings.ToUpper(ticket), qr.L)
	if err != nil {
		return "", err
	}
	const begin, end = "\x1b[30;107m", "\x1b[0m\n" // black on bright white
	blocks := map[[2]bool]string{{false, false}: " ", {true, false}: "▀", {false, true}: "▄", {true, true}: "█"}
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		b.WriteString(begin)
		for x := -quiet; x < code.Size+quiet; x++ {
			b.WriteString(blocks[[2]bool{code.Black(x, y), code.Black(x, y+1)}])
		}
		b.WriteString(end)
	}
	return b.String(), nil
}
