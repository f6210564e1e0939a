package peerlane

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxExplained bounds a text of an Explanation, in bytes.
const maxExplained = 512

// printable returns untrusted text on one line, with control characters escaped, and cut to maxExplained bytes.
func printable(text string) string {
	var b strings.Builder
	for field := range strings.FieldsSeq(text[:min(len(text), 4*maxExplained)]) {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		for _, r := range field {
			if strconv.IsPrint(r) && r != utf8.RuneError {
				b.WriteRune(r)
				continue
			}
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	out := b.String()
	if len(out) <= maxExplained {
		return out
	}
	return strings.ToValidUTF8(out[:maxExplained-len("...")], "") + "..."
}

// String returns the explanation as text: lines with a label each, to be read, and to be pasted into a report. It ends with a line break.
func (e *Explanation) String() string {
	if e == nil {
		return ""
	}
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-8s "+format+"\n", append([]any{label}, args...)...)
	}
	line("peer", "%s", e.Peer)
	if e.Tag != "" {
		line("tag", "%s", e.Tag)
	}
	e.result(line)
	for _, a := range e.Addrs {
		line("address", "%s (%s)", a.Addr, a.From)
	}
	if e.MoreAddrs > 0 {
		line("address", "and %d more", e.MoreAddrs)
	}
	for _, d := range e.Dials {
		line("dial", "%s", d)
	}
	for _, r := range e.Relays {
		line("relay", "%s", r)
	}
	e.punching(line)
	if l := e.Limit; l != nil {
		line("limit", "%s", l)
	}
	if e.Agent != "" {
		line("agent", "%q", e.Agent)
	}
	if len(e.Serves) > 0 {
		line("serves", "%s", strings.Join(e.Serves, " "))
	}
	if len(e.Keys) > 0 {
		line("keys", "%s", strings.Join(e.Keys, " "))
	}
	if e.Text != "" {
		line("error", "%s", e.Text)
	}
	if e.Do != "" {
		line("do", "%s", e.Do)
	}
	return b.String()
}

// result writes the lines about the result and the path.
func (e *Explanation) result(line func(label, format string, args ...any)) {
	took := timeText(time.Duration(e.Took))
	switch {
	case e.Reached && e.RTT > 0:
		line("result", "reached in %s, round trip %s", took, timeText(time.Duration(e.RTT)))
	case e.Reached:
		line("result", "reached in %s", took)
	case e.Partial:
		line("result", "not reached when the time was up, after %s: %s", took, e.Reason)
	default:
		line("result", "not reached, after %s: %s", took, e.Reason)
	}
	if !e.Reached {
		line("why", "%s", e.What)
	}
	if e.Path != "" {
		line("path", "%s", e.Path)
	}
}

// punching writes the lines about hole punching.
func (e *Explanation) punching(line func(label, format string, args ...any)) {
	switch e.Punching {
	case punchingOff:
		line("punch", "off: HolePunch of node.Options turns it on")
	case punchingUnknown:
		line("punch", "unknown: the host is not of package node, and has no record of it")
	case punchingOn:
		if len(e.Punches) == 0 {
			line("punch", "on, no attempt yet")
		}
	}
	for _, p := range e.Punches {
		if p.Error == "" {
			line("punch", "led to a direct connection, in %s", timeText(time.Duration(p.Took)))
			continue
		}
		line("punch", "%s, after %s", p.Error, timeText(time.Duration(p.Took)))
	}
}

// String returns the dial as text.
func (d ExplainedDial) String() string {
	of := d.Addr
	if of == "" {
		of = "the peer"
	}
	if d.Relay {
		of = "relay " + of
	}
	times := ""
	if d.Times > 1 {
		times = fmt.Sprintf(", the last of %d times", d.Times)
	}
	return fmt.Sprintf("%s: %s, within %s%s", of, d.Error, timeText(time.Duration(d.Took)), times)
}

// String returns the relay as text.
func (r ExplainedRelay) String() string {
	text := r.Relay
	if r.Connected {
		text += ", connected"
	} else {
		text += ", not connected"
	}
	switch {
	case r.Data > 0:
		text += fmt.Sprintf(", passes %d KiB each way on each connection, %d KiB left", r.Data>>10, r.Left>>10)
	case r.Duration > 0:
		text += fmt.Sprintf(", keeps each connection for %v", time.Duration(r.Duration))
	case r.Used:
		text += ", without limits"
	}
	return text
}

// String returns the limit as text.
func (l ExplainedLimit) String() string {
	text := fmt.Sprintf("of this host: %s", l.Name)
	if l.By != byLocal {
		text = fmt.Sprintf("of the %s: %s", l.By, l.Name)
	}
	if l.Text != "" {
		text += fmt.Sprintf(": %q", l.Text)
	}
	if l.Retry > 0 {
		text += fmt.Sprintf(", try again after %s", timeText(time.Duration(l.Retry)))
	}
	return text
}

// timeText returns a time with two digits or three.
func timeText(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
}
