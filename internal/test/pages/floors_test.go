package pages

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/peerlane/peerlane"

var (
	floorRow  = regexp.MustCompile("(?m)^\\| (\\d) \\| `([^`]+)` \\|")
	floorRule = regexp.MustCompile(`(?m)^ +floor-(\d)-.*:\n.*\n +files: \[(.*)\]`)
	rulePath  = regexp.MustCompile(`"((?:\*|\$all)[^"]*)"`)
)

// floors returns the floors of ARCHITECTURE.md by import path.
func floors(t *testing.T) map[string]string {
	b, err := os.ReadFile(filepath.Join(root, "docs", "ARCHITECTURE.md"))
	require.NoError(t, err)
	all := make(map[string]string)
	for _, m := range floorRow.FindAllStringSubmatch(string(b), -1) {
		path := module + "/" + m[2]
		if m[2] == "peerlane" {
			path = module
		}
		require.Empty(t, all[path], "%s is there twice", path)
		all[path] = m[1]
	}
	return all
}

// Each package has a floor, and imports only from lower ones.
func TestImportsPointDown(t *testing.T) {
	of := floors(t)
	for line := range strings.Lines(run(t, root, nil, "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./...")) {
		fields := strings.Fields(line)
		path := fields[0]
		if strings.HasPrefix(path, module+"/internal/test/") || strings.HasPrefix(path, module+"/examples/") {
			continue
		}
		require.NotEmpty(t, of[path], "ARCHITECTURE.md has no floor for %s", path)
		for _, imported := range fields[1:] {
			if strings.HasPrefix(imported, module) {
				require.Less(t, of[imported], of[path], "%s imports %s", path, imported)
			}
		}
	}
}

// The linter's rules have the same numbers.
func TestTheLinterHasTheFloorsOfThePage(t *testing.T) {
	of := floors(t)
	b, err := os.ReadFile(filepath.Join(root, ".golangci.yml"))
	require.NoError(t, err)
	rules := floorRule.FindAllStringSubmatch(string(b), -1)
	require.Greater(t, len(rules), 15)
	for _, m := range rules {
		for _, given := range rulePath.FindAllStringSubmatch(m[2], -1) {
			path, pattern := module, given[1]
			if pattern != "$all" {
				path += "/" + strings.TrimPrefix(filepath.ToSlash(filepath.Dir(pattern)), "**/")
			}
			require.Equal(t, of[path], m[1], "%s: %s", pattern, path)
		}
	}
}

// A package with a large dependency of its own is the only one that imports it, beside the command, so that no other program links it.
func TestOnlyTheirPackagesBringDependencies(t *testing.T) {
	of := map[string]string{
		"github.com/prometheus/":      module + "/diagnostics/metrics",
		"github.com/fxamacker/cbor":   module + "/codec/cbor",
		"google.golang.org/protobuf/": module + "/codec/protobuf",
	}
	found := make(map[string]bool)
	for line := range strings.Lines(run(t, root, nil, "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./...")) {
		fields := strings.Fields(line)
		if fields[0] == module+"/cmd/peerlane" { // a program may
			continue
		}
		for _, imported := range fields[1:] {
			for prefix, path := range of {
				if strings.HasPrefix(imported, prefix) {
					require.Equal(t, path, fields[0], "%s imports %s", fields[0], imported)
					found[prefix] = true
				}
			}
			for _, path := range of {
				require.NotEqual(t, path, imported, "%s imports it", fields[0])
			}
		}
	}
	require.Len(t, found, len(of))
}
