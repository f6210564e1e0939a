package record

import (
	"fmt"
	"math/bits"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every number of SPEC.md, and of the docs, is the code's.
func TestSpecHasTheNumbersOfTheCode(t *testing.T) {
	text, err := os.ReadFile("SPEC.md")
	require.NoError(t, err)
	none := (*Options)(nil).withDefaults()
	var rows []string
	for k, size := range map[kind]string{
		kindBatch:  fmt.Sprintf("at most %d + the reader's window in bytes (3.2)", batchHead+ackSize),
		kindAck:    fmt.Sprint(ackSize),
		kindFail:   fmt.Sprintf("%d to %d", failHead, failHead+maxText),
		kindRewind: fmt.Sprint(ackSize),
		kindEnd:    fmt.Sprint(ackSize),
		kindClose:  fmt.Sprintf("%d to %d", closeHead, closeHead+maxText),
	} {
		row := fmt.Sprintf("| 0x%02x | %v |", uint8(k), k)
		_, rest, found := strings.Cut(string(text), row)
		require.True(t, found, row)
		line, _, _ := strings.Cut(rest, "\n")
		require.True(t, strings.HasSuffix(line, "| "+size+" |"), "%s%s", row, line)
	}
	for code, name := range map[Code]string{
		codeDone: "done", codeProtocol: "protocol", codeVersion: "version", codeNotAccepted: "not accepted", codeHistory: "history",
		CodeStore: "store", CodeSuperseded: "superseded", codeBusy: "busy", CodeInternal: "internal",
	} {
		rows = append(rows, fmt.Sprintf("| %d | %s |", code, name))
	}
	rows = append(rows,
		fmt.Sprintf("with flag 0x%02x also ack u64", flagAck),
		"the ack of a BATCH",
		fmt.Sprintf("at most %d bytes", maxText),
		fmt.Sprintf("OPEN and ACCEPT have %d bytes; REFUSE has the same first %d", helloSize, helloPrefix),
		fmt.Sprintf("magic 0x%02X 0x%02X 0x%02X 0x%02X, version %d, kind 0x%02x OPEN, 0x%02x ACCEPT, 0x%02x REFUSE", helloMagic[0],
			helloMagic[1], helloMagic[2], helloMagic[3], helloVersion, uint8(helloOpen), uint8(helloAccept), uint8(helloRefuse)),
		fmt.Sprintf("log %d bytes", logSize),
		fmt.Sprintf("known %d bytes", logSize),
		fmt.Sprintf("%d <= records <= 2^%d, 1 <= largest, largest + %d <= bytes <= 2^%d", leastWindow, log2(t, maxWindow), maxLengthSize,
			log2(t, maxBytes)),
		fmt.Sprintf("| bit %d | *batch-ack* |", log2(t, capBatchAck)),
		fmt.Sprintf("| bit %d | *confirm* |", log2(t, capConfirm)),
		fmt.Sprintf("| bit %d | *moving* |", log2(t, capMoving)),
		fmt.Sprintf("| bit %d | *given* |", log2(t, capGiven)),
		fmt.Sprintf("it is %d bytes: u64", givenSize),
		fmt.Sprintf("log names the log that this side writes: %d random bits", 8*logSize),
		fmt.Sprintf("| %d and above | |", CodeApplication),
		fmt.Sprintf("`Options.AckDelay`, %d ms", none.AckDelay.Milliseconds()),
	)
	for _, row := range rows {
		require.Contains(t, string(text), row)
	}
	require.Len(t, rawHello(helloOpen).append(nil), helloSize)
	require.Equal(t, headerSize, len(header{}.append(nil)))
	require.Len(t, appendRefusal(nil, 1, ""), helloPrefix+4+2)
	require.Equal(t, len(rawBatch(1, "")), batchRoom+1)
	require.Equal(t, len(rawBatchAck(batch{first: 1, acked: true}, "")), batchRoomAck+1)

	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	require.Contains(t, string(doc), fmt.Sprintf("2^%d records, 2^%d bytes", log2(t, maxWindow), log2(t, maxBytes)))
}

// log2 returns the power of two that n is.
func log2(t *testing.T, n uint) int {
	require.Equal(t, 1, bits.OnesCount(n), "%d", n)
	return bits.TrailingZeros(n)
}

// What the docs of Options say of the zero value.
func TestSpecOfTheOptionsIsTheirDoc(t *testing.T) {
	text, err := os.ReadFile("options.go")
	require.NoError(t, err)
	o := (*Options)(nil).withDefaults()
	for field, says := range map[string]string{
		"Window":           fmt.Sprintf("If zero, %d. At most 2^%d", o.Window, log2(t, maxWindow)),
		"WindowBytes":      fmt.Sprintf("If zero, %d MiB. At most 2^%d", o.WindowBytes>>20, log2(t, maxBytes)),
		"MaxRecord":        fmt.Sprintf("If zero, %d MiB, or what WindowBytes has room for", o.MaxRecord>>20),
		"BatchBytes":       fmt.Sprintf("If zero, %d KiB", o.BatchBytes>>10),
		"Linger":           "If zero, none waits",
		"AckDelay":         fmt.Sprintf("If zero, %d ms. If negative, none waits", o.AckDelay.Milliseconds()),
		"HandshakeTimeout": fmt.Sprintf("If zero, %d s", int(o.HandshakeTimeout.Seconds())),
		"CloseTimeout":     fmt.Sprintf("If zero, %d s", int(o.CloseTimeout.Seconds())),
	} {
		_, rest, found := strings.Cut(string(text), "\t// "+field+" ")
		require.True(t, found, field)
		doc, _, found := strings.Cut(rest, "\n\t"+field+" ")
		require.True(t, found, field)
		require.Contains(t, strings.ReplaceAll(doc, "\n\t// ", " "), says, field)
	}
}
