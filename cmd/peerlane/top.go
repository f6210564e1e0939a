package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/peerlane/peerlane/diagnostics"
	"github.com/peerlane/peerlane/internal/admin"
)

// topCmd is peerlane top.
type topCmd struct {
	processArg
	Every time.Duration `default:"1s" help:"How often to look."`
}

// Run shows a process until the user quits, the process ends, or ctx does.
func (c *topCmd) Run(ctx context.Context, std stdio) error {
	if c.Every < minEvery {
		return fmt.Errorf("%w: --every must be %v or more", errUsage, minEvery)
	}
	if !std.isTerminal() || !isTerminal(std.in) {
		return fmt.Errorf("%w: top needs a terminal; peerlane status prints once", errUsage)
	}
	p, err := c.find(admin.Folder())
	if err != nil {
		return err
	}
	view := &topView{name: p.String(), every: c.Every, fetch: func() (*diagnostics.ProcessSnapshot, error) { return snapshotOf(ctx, p) }}
	_, err = tea.NewProgram(view, tea.WithContext(ctx), tea.WithInput(std.in), tea.WithOutput(std.terminal())).Run()
	if ctx.Err() != nil {
		return nil // interrupted, as one leaves it
	}
	return err
}

// minEvery is how often top may look at a process: each time takes a snapshot there.
const minEvery = 200 * time.Millisecond

// A topView is the screen of top: a model for bubbletea.
type topView struct {
	name  string
	every time.Duration
	fetch func() (*diagnostics.ProcessSnapshot, error)

	width, height int
	first         int // line that is shown first
	order         int // of topOrders
	paused        bool
	now, before   *diagnostics.ProcessSnapshot
	err           error // of the last look
}

// topOrders are the orders of sessions that a key changes between.
var topOrders = []struct {
	name string
	less func(a, b *diagnostics.SessionSnapshot) int
}{
	{"peer", func(a, b *diagnostics.SessionSnapshot) int { return strings.Compare(a.Peer+a.Tag, b.Peer+b.Tag) }},
	{"bytes", func(a, b *diagnostics.SessionSnapshot) int {
		return compareDown(a.BytesIn+a.BytesOut, b.BytesIn+b.BytesOut)
	}},
	{"round trip", func(a, b *diagnostics.SessionSnapshot) int { return compareDown(a.RTT, b.RTT) }},
	{"age", func(a, b *diagnostics.SessionSnapshot) int { return a.Started.Compare(b.Started) }},
}

func compareDown[T uint64 | diagnostics.Duration](a, b T) int {
	switch {
	case a > b:
		return -1
	case a < b:
		return 1
	}
	return 0
}

// Messages for topView.
type (
	topLook  struct{} // it is time to look
	topTaken struct {
		v   *diagnostics.ProcessSnapshot
		err error
	}
)

// Init looks for the first time.
func (m *topView) Init() tea.Cmd { return m.look }

// look takes a snapshot.
func (m *topView) look() tea.Msg {
	v, err := m.fetch()
	return topTaken{v, err}
}

// Update handles a key, a change of the terminal's size, or a snapshot.
func (m *topView) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case topTaken:
		if m.err = msg.err; msg.err == nil && !m.paused {
			m.before, m.now = m.now, msg.v
		}
		return m, tea.Tick(m.every, func(time.Time) tea.Msg { return topLook{} })
	case topLook:
		return m, m.look
	case tea.KeyPressMsg:
		return m, m.press(msg.String())
	}
	return m, nil
}

// press handles a key.
func (m *topView) press(key string) tea.Cmd {
	page := max(1, m.height-3)
	switch key {
	case "q", "esc", "ctrl+c":
		return tea.Quit
	case "space", "p":
		m.paused = !m.paused
	case "o":
		m.order = (m.order + 1) % len(topOrders)
	case "down", "j":
		m.first++
	case "up", "k":
		m.first--
	case "pgdown":
		m.first += page
	case "pgup":
		m.first -= page
	case "home":
		m.first = 0
	}
	return nil
}

// View returns the screen.
func (m *topView) View() tea.View {
	v := tea.NewView(strings.Join(m.lines(), "\n"))
	v.AltScreen = true
	return v
}

// lines returns as many lines as there is room for, none of them wider than the terminal.
func (m *topView) lines() []string {
	var all []string
	if m.now != nil {
		ordered := *m.now
		ordered.Clients, ordered.Servers = slices.Clone(ordered.Clients), slices.Clone(ordered.Servers)
		for i := range ordered.Clients {
			ordered.Clients[i].Sessions = m.sorted(ordered.Clients[i].Sessions)
		}
		for i := range ordered.Servers {
			ordered.Servers[i].Sessions = m.sorted(ordered.Servers[i].Sessions)
		}
		all = statusLines(m.name, &ordered, len(sessionsOf(&ordered)))
	}
	foot := fmt.Sprintf("q quit  o order: %s  space pause  arrows scroll  %s", topOrders[m.order].name, m.rates())
	switch {
	case m.err != nil:
		foot = "q quit  " + safe(m.err.Error())
	case m.paused:
		foot = "paused  " + foot
	}
	room := max(0, m.height-1)
	m.first = max(0, min(m.first, len(all)-room))
	shown := all[m.first:min(len(all), m.first+room)]
	out := make([]string, 0, m.height)
	for _, line := range append(slices.Clone(shown), slices.Repeat([]string{""}, room-len(shown))...) {
		out = append(out, clip(line, m.width))
	}
	return append(out, clip(foot, m.width))
}

// sorted returns sessions in the order that is chosen.
func (m *topView) sorted(all []diagnostics.SessionSnapshot) []diagnostics.SessionSnapshot {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b diagnostics.SessionSnapshot) int { return topOrders[m.order].less(&a, &b) })
	return all
}

// rates returns how much goes in and out between the last two snapshots.
func (m *topView) rates() string {
	if m.now == nil || m.before == nil {
		return ""
	}
	d := m.now.Taken.Sub(m.before.Taken).Seconds()
	if d <= 0 {
		return ""
	}
	per := func(now, before uint64) string {
		if now < before { // sessions have ended
			return "0 B/s"
		}
		return bytesText(float64(now-before)/d) + "/s"
	}
	return per(m.now.Summary.BytesIn, m.before.Summary.BytesIn) + " in, " + per(m.now.Summary.BytesOut, m.before.Summary.BytesOut) + " out"
}

// clip returns the first n characters of text.
func clip(text string, n int) string {
	runes := []rune(text)
	return string(runes[:min(len(runes), max(0, n))])
}
