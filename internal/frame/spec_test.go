package frame

import (
	"encoding/hex"
	"flag"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
)

// These tests hold docs/PROTOCOL.md to the code: who changes a number in one place only is told so.

const (
	specFile = "../../docs/PROTOCOL.md"
	pskFile  = "../../psk/SPEC.md"
)

var update = flag.Bool("update", false, "copy psk/SPEC.md into section 6 of docs/PROTOCOL.md")

func readSpec(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(specFile)
	require.NoError(t, err)
	return string(text)
}

// goConstants returns the integer constants of the package in dir, as its source has them.
func goConstants(t *testing.T, dir string) map[string]uint64 {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	found := map[string]uint64{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for n := range ast.Preorder(file) {
			if spec, ok := n.(*ast.ValueSpec); ok {
				addConstants(found, spec)
			}
		}
	}
	return found
}

// addConstants adds what spec gives explicit integer values to.
func addConstants(found map[string]uint64, spec *ast.ValueSpec) {
	for i, value := range spec.Values {
		v, err := types.Eval(token.NewFileSet(), nil, token.NoPos, types.ExprString(value))
		if err != nil || v.Value == nil {
			continue // not a constant of literals alone
		}
		if n, exact := constant.Uint64Val(constant.ToInt(v.Value)); exact {
			found[spec.Names[i].Name] = n
		}
	}
}

// A specRow is a row of a table that names a Go constant.
type specRow struct {
	pkg, constant string
	number        uint64
	cells         []string
}

var goName = regexp.MustCompile("^`([a-z]+)\\.([A-Za-z]+)`$")

// specRows returns the rows of all tables that name a constant; the row's first cell that is a number is its value.
func specRows(t *testing.T) []specRow {
	t.Helper()
	var rows []specRow
	for line := range strings.Lines(readSpec(t)) {
		row := specRow{}
		numbered := false
		for cell := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			cell = strings.TrimSpace(cell)
			row.cells = append(row.cells, cell)
			if m := goName.FindStringSubmatch(cell); m != nil {
				row.pkg, row.constant = m[1], m[2]
			} else if n, err := strconv.ParseUint(cell, 0, 64); err == nil && !numbered {
				row.number, numbered = n, true
			}
		}
		if !strings.HasPrefix(line, "|") || row.constant == "" {
			continue
		}
		require.True(t, numbered, "no number in %q", line)
		rows = append(rows, row)
	}
	return rows
}

func TestEveryNumberOfTheSpecificationIsTheCodes(t *testing.T) {
	consts := map[string]map[string]uint64{}
	for pkg, dir := range map[string]string{"frame": ".", "codes": "../../codes", "flow": "../flow", "session": "../../session"} {
		consts[pkg] = goConstants(t, dir)
	}
	for _, row := range specRows(t) {
		require.Contains(t, consts, row.pkg, "%v", row.cells)
		require.Contains(t, consts[row.pkg], row.constant, "the specification names a constant that is gone: %v", row.cells)
		require.Equal(t, consts[row.pkg][row.constant], row.number, "%s.%s", row.pkg, row.constant)
	}
}

func TestEveryNumberOfTheWireStandsInTheSpecification(t *testing.T) {
	specified := map[string]bool{}
	for _, row := range specRows(t) {
		specified[row.pkg+"."+row.constant] = true
	}
	for dir, some := range map[string][]string{
		".":           {"TypeGoAway", "fieldNoise", "KindRefuse", "RoleResume", "CapResume"},
		"../../codes": {"FlowControl"},
		"../flow":     {"kindStart", "kindStop", "headerSize"},
	} {
		consts := goConstants(t, dir)
		for _, name := range some {
			require.Contains(t, consts, name, "the test does not read the source")
		}
		for name := range consts {
			switch {
			case dir == "." && (ast.IsExported(name) || strings.HasPrefix(name, "field")):
				require.True(t, specified["frame."+name], "frame.%s is not in %s", name, specFile)
			case dir == "../../codes":
				require.True(t, specified["codes."+name], "codes.%s is not in %s", name, specFile)
			case strings.HasPrefix(name, "kind"):
				require.True(t, specified["flow."+name], "flow.%s is not in %s", name, specFile)
			}
		}
	}
}

func TestNamesOfTheSpecificationAreTheCodes(t *testing.T) {
	seen := map[string]int{}
	for _, row := range specRows(t) {
		var name string
		switch {
		case row.constant == "TypeOptional":
			continue
		case row.pkg == "codes":
			seen["codes"]++
			require.Equal(t, codes.Code(row.number).String(), row.cells[1], "row %v", row.cells)
			continue
		case row.pkg != "frame":
			continue
		case strings.HasPrefix(row.constant, "Type"):
			name = Type(row.number).String()
		case strings.HasPrefix(row.constant, "Kind"):
			name = Kind(row.number).String()
		default:
			continue
		}
		seen[row.constant[:4]]++
		require.Equal(t, name, row.cells[1], "row %v", row.cells)
	}
	known := 0
	for n := range 256 {
		if Type(n).Known() {
			known++
		}
	}
	require.Equal(t, map[string]int{"Type": known, "Kind": 3, "codes": len(goConstants(t, "../../codes"))}, seen)
}

var handVector = regexp.MustCompile("(?ms)^```hex ([a-z.]+): ([^\n]+)\n(.*?)^```$")

func TestVectorsInTheSpecificationAreTheGoldenOnes(t *testing.T) {
	found := handVector.FindAllStringSubmatch(readSpec(t), -1)
	require.Len(t, found, 2)
	for _, m := range found {
		var b []byte
		for line := range strings.Lines(m[3]) {
			digits, _, _ := strings.Cut(strings.TrimSpace(line), "  ")
			part, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
			require.NoError(t, err, "%s: %q", m[2], line)
			b = append(b, part...)
		}
		require.Equal(t, vectors(t, m[1])[m[2]], b, "%s of %s", m[2], m[1])
	}
}

var chapter = regexp.MustCompile(`(?m)^## (\d+)\. `)

// sealSection returns section 6 as psk/SPEC.md makes it.
func sealSection(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(pskFile)
	require.NoError(t, err)
	_, body, found := strings.Cut(string(text), "\n## 1. ")
	require.True(t, found, "%s has no section 1", pskFile)
	return chapter.ReplaceAllString("## 1. "+body, "### 6.$1 ")
}

// The copy is word for word, so that one document is enough for a stranger. To bring it up to date:
//
//	go test ./internal/frame -run TestSealSection -update
func TestSealSectionOfTheSpecificationIsThePSKOne(t *testing.T) {
	const begin, end = "<!-- psk/SPEC.md begins -->\n\n", "\n<!-- psk/SPEC.md ends -->"
	before, rest, found := strings.Cut(readSpec(t), begin)
	require.True(t, found, "%s has no %q", specFile, begin)
	have, after, found := strings.Cut(rest, end)
	require.True(t, found, "%s has no %q", specFile, end)
	want := sealSection(t)
	if *update {
		require.NoError(t, os.WriteFile(specFile, []byte(before+begin+want+end+after), 0o644))
		return
	}
	require.Equal(t, want, have, "psk/SPEC.md has changed: go test ./internal/frame -run TestSealSection -update")
}
