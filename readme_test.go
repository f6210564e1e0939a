package peerlane

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	fenced  = regexp.MustCompile("(?s)```.*?```")
	comment = regexp.MustCompile(`(?m)\s*(//|#).*$`)
	counted = regexp.MustCompile("(?m)^\\| \\[`([^`]+)`\\]\\(([^)]+)\\) \\|.*\\| (\\d+) \\|$")
)

// code returns the fenced blocks of a page without their comments, which are translated.
func code(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	blocks := fenced.FindAllString(string(text), -1)
	for i := range blocks {
		blocks[i] = comment.ReplaceAllString(blocks[i], "")
	}
	return blocks
}

func TestBothReadmesShowTheSameCode(t *testing.T) {
	require.Equal(t, code(t, "README.md"), code(t, "README.zh-CN.md"))
}

// The README says how large each package is. A page that is off by more than a fifth misleads.
func TestReadmeTellsTheSizeOfEachPackage(t *testing.T) {
	for _, page := range []string{"README.md", "README.zh-CN.md"} {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		rows := counted.FindAllStringSubmatch(string(text), -1)
		require.NotEmpty(t, rows, page)
		for _, row := range rows {
			told, err := strconv.Atoi(row[3])
			require.NoError(t, err)
			require.InEpsilon(t, codeLines(t, row[2]), told, 0.2, "%s: package %s", page, row[1])
		}
	}
}

// codeLines counts the lines of a folder's Go files, tests aside, that are neither blank nor a comment alone.
func codeLines(t *testing.T, dir string) int {
	t.Helper()
	pattern := filepath.Join(dir, "*.go")
	if dir == "examples" {
		pattern = filepath.Join(dir, "*", "*.go")
	}
	files, err := filepath.Glob(pattern)
	require.NoError(t, err)
	n := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
				n++
			}
		}
	}
	return n
}
