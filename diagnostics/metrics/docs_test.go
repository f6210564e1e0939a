package metrics

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// A documented metric has the columns of the table in docs/DIAGNOSTICS.md.
type documented struct{ name, kind, labels, help string }

// documentation returns all metrics, in the order of the table.
func documentation() []documented {
	var all []documented
	for _, m := range byTag {
		labels := []string{"role", "tag"}
		if m.label != "" {
			values := make([]string, 0, len(m.figures))
			for _, f := range m.figures {
				values = append(values, f.label)
			}
			labels = append(labels, m.label+"="+strings.Join(values, "/"))
		}
		kind := "gauge"
		if m.kind == prometheus.CounterValue {
			kind = "counter"
		}
		all = append(all, documented{m.name, kind, strings.Join(labels, ", "), m.help})
	}
	for _, m := range byLimit {
		kind := "gauge"
		if m.kind == prometheus.CounterValue {
			kind = "counter"
		}
		all = append(all, documented{m.name, kind, "role, limit", m.help})
	}
	for _, h := range histograms {
		labels := "role, tag"
		if h.label != "" {
			labels += ", " + h.label + "=answered/failed"
		}
		all = append(all, documented{h.name, "histogram", labels, h.help})
	}
	return all
}

// The table of docs/DIAGNOSTICS.md has each metric, and no other.
func TestThePageHasEachMetric(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "DIAGNOSTICS.md"))
	require.NoError(t, err)
	var rows strings.Builder
	for _, d := range documentation() {
		fmt.Fprintf(&rows, "| `%s` | %s | %s | %s |\n", d.name, d.kind, d.labels, d.help)
	}
	require.Equal(t, rows.String(), strings.Join(regexp.MustCompile("(?m)^\\| `peerlane_.*\n").FindAllString(string(page), -1), ""))
}

var (
	nameForm   = regexp.MustCompile(`^peerlane(_[a-z]+)+$`)
	nameInExpr = regexp.MustCompile(`peerlane_[a-z_]+`)
	labelsOf   = regexp.MustCompile(`(peerlane_[a-z_]+)\{([^}]*)\}`)
	labelName  = regexp.MustCompile(`([a-z]+)\s*(?:=~|!=|=)`)
)

// Names are as Prometheus recommends: counters end in _total, durations in _seconds, sizes in _bytes or _bytes_total.
func TestNamesFollowTheConventions(t *testing.T) {
	seen := make(map[string]bool)
	for _, d := range documentation() {
		require.Regexp(t, nameForm, d.name)
		require.False(t, seen[d.name], d.name)
		seen[d.name] = true
		require.Equal(t, d.kind == "counter", strings.HasSuffix(d.name, "_total"), d.name)
		require.Equal(t, d.kind == "histogram", strings.HasSuffix(d.name, "_seconds"), d.name)
		require.Equal(t, strings.HasPrefix(d.help, "Bytes "), strings.Contains(d.name, "_bytes"), d.name)
		require.True(t, strings.HasSuffix(d.help, "."), d.name)
	}
}

// A dashboard of Grafana, as far as the test reads it.
type dashboard struct {
	UID, Title string
	Panels     []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ X, Y, W, H int } `json:"gridPos"`
		Targets []struct{ Expr, LegendFormat string }
	}
	Templating struct {
		List []struct{ Name, Type, Query string }
	}
}

// Each metric and label that a panel names exists, and each metric is in a panel.
func TestTheDashboardHasTheMetrics(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "grafana.json"))
	require.NoError(t, err)
	var d dashboard
	require.NoError(t, json.Unmarshal(b, &d))
	require.NotEmpty(t, d.UID)
	labels := make(map[string]string)
	for _, m := range documentation() {
		labels[m.name] = m.labels
		if m.kind == "histogram" {
			for _, part := range []string{"_bucket", "_sum", "_count"} {
				labels[m.name+part] = m.labels + ", le"
			}
		}
	}
	shown := make(map[string]bool)
	check := func(where, expr string) {
		require.Regexp(t, nameInExpr, expr, where)
		for _, name := range nameInExpr.FindAllString(expr, -1) {
			require.Contains(t, labels, name, where)
			shown[name] = true
		}
		for _, m := range labelsOf.FindAllStringSubmatch(expr, -1) {
			for _, l := range labelName.FindAllStringSubmatch(m[2], -1) {
				require.Regexp(t, `\b`+l[1]+`\b`, labels[m[1]], "%s: %s", where, m[0])
			}
		}
	}
	ids, taken := make(map[int]bool), make(map[[2]int]string)
	for _, p := range d.Panels {
		require.False(t, ids[p.ID], p.Title)
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				require.Empty(t, taken[[2]int{x, y}], "%s is where %s is", p.Title, taken[[2]int{x, y}])
				taken[[2]int{x, y}] = p.Title
			}
		}
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		require.Equal(t, p.Type == "row", len(p.Targets) == 0, p.Title)
		for _, target := range p.Targets {
			check(p.Title, target.Expr)
		}
	}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			check("variable "+v.Name, v.Query)
		}
	}
	for _, m := range documentation() {
		require.True(t, shown[m.name] || shown[m.name+"_bucket"], "no panel shows %s", m.name)
	}
}
