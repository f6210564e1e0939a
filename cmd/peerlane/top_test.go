package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/diagnostics"
)

// busy returns a process with n sessions, after so many seconds.
func busy(n, seconds int) *diagnostics.ProcessSnapshot {
	at := time.Date(2026, 12, 1, 10, 0, seconds, 0, time.UTC)
	v := &diagnostics.ProcessSnapshot{Taken: at, Servers: []diagnostics.ServerSnapshot{{Host: "12D3KooWHost", Tags: []string{"/x"}}}}
	for i := range n {
		v.Servers[0].Sessions = append(v.Servers[0].Sessions, diagnostics.SessionSnapshot{
			Peer: fmt.Sprintf("12D3KooWPeer%02d\x1b[2J", i), Tag: "/x", BytesIn: uint64(i * 1000 * seconds), RTT: diagnostics.Duration(i+1) * 1e6,
			Started: at.Add(-time.Minute), Path: &diagnostics.PathSnapshot{Text: "direct, tcp"}})
	}
	v.Servers[0].Ended = []diagnostics.Event{{Peer: "12D3KooWGone", Tag: "/x", At: at.Add(-time.Second), Why: &diagnostics.Cause{By: "peer", Text: "closed"}}}
	v.Summary = diagnostics.Summary(v.Servers[0])
	return v
}

func key(code rune) tea.Msg { return tea.KeyPressMsg{Code: code, Text: string(code)} }

func TestTopShowsWhatThereIsRoomFor(t *testing.T) {
	seconds := 0
	m := &topView{name: "serve 7", every: time.Second, fetch: func() (*diagnostics.ProcessSnapshot, error) { seconds++; return busy(40, seconds), nil }}
	m.Update(tea.WindowSizeMsg{Width: 60, Height: 10})
	for range 2 {
		_, next := m.Update(m.look())
		require.NotNil(t, next, "it looks again")
	}
	lines := m.lines()
	require.Len(t, lines, 10)
	for _, line := range lines {
		require.LessOrEqual(t, len([]rune(line)), 60)
		require.NotContains(t, line, "\x1b", "text of a peer moves no cursor")
	}
	require.True(t, strings.HasPrefix(lines[0], "process  serve 7, up for "), lines[0])
	require.Contains(t, lines[9], "q quit")
	require.Contains(t, m.rates(), "780 kB/s in")

	m.Update(key('o'))
	require.Contains(t, m.lines()[4], "…39", "the order of bytes")
	m.Update(tea.KeyPressMsg{Code: tea.KeyPgDown})
	require.Contains(t, m.lines()[0], "12D3Ko")
	for range 20 {
		m.Update(tea.KeyPressMsg{Code: tea.KeyPgDown})
	}
	require.Contains(t, m.lines()[8], "ended", "the end")
	m.Update(tea.KeyPressMsg{Code: tea.KeyHome})
	require.Contains(t, m.lines()[0], "process")

	m.Update(key('p'))
	was := m.now
	m.Update(m.look())
	require.Same(t, was, m.now, "paused")
	require.Contains(t, m.lines()[9], "paused")
	m.Update(topTaken{err: errors.New("serve 7: gone")})
	require.Contains(t, m.lines()[9], "serve 7: gone")
	_, quit := m.Update(key('q'))
	require.Equal(t, tea.QuitMsg{}, quit())
	for _, size := range []tea.WindowSizeMsg{{}, {Width: 1, Height: 1}, {Width: 500, Height: 200}} {
		m.Update(size)
		require.Len(t, m.lines(), max(1, size.Height))
		_ = m.View()
	}
}

func TestStatusIsSafeForATerminal(t *testing.T) {
	v := busy(30, 5)
	v.Servers[0].Ended[0].Why.Text = "evil\x1b]0;title\a\nprocess  forged"
	lines := statusLines("serve 7", v, 20)
	for _, line := range lines {
		require.NotContains(t, line, "\x1b")
		require.NotContains(t, line, "\n")
	}
	text := strings.Join(lines, "\n")
	require.Contains(t, text, "         and 10 more; --all shows them")
	require.Contains(t, text, "ended    12D3KooWGone /x 1.0 s ago, by peer: evil")
}
