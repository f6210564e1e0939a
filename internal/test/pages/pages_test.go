// Package pages has the tests of the project's pages and of its packages' documentation: their Go code compiles, and their programs run and
// print what they say.
package pages

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/doc/comment"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../../.."

// A snippet is Go code on a page.
type snippet struct {
	page string // relative to root
	line int
	code string
}

func (s snippet) String() string { return fmt.Sprintf("%s:%d", s.page, s.line) }

func (s snippet) isProgram() bool { return strings.HasPrefix(s.code, "package ") }

// isFunc reports whether s is a function, as the tests of users are.
func (s snippet) isFunc() bool { return strings.HasPrefix(s.code, "func Test") }

var (
	fence     = regexp.MustCompile("(?ms)^```go\n(.*?)^```")
	changed   = regexp.MustCompile(`(?m)^[-+]\t`)
	removed   = regexp.MustCompile(`(?m)^-.*\n`)
	useTable  = regexp.MustCompile(`(?m)^\|[^|]*\| (?:use|使用) \|.*\n((?:\|.*\n)+)`)
	useColumn = regexp.MustCompile("(?m)^\\|[^|]*\\| `([^`]+)`")
	prints    = regexp.MustCompile(`fmt\.Print\w*\(.*\) // (.*)`)
)

// snippets returns the Go code of all pages and package comments.
func snippets(t *testing.T) []snippet {
	var all []snippet
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "internal" || d.Name() == "testdata" || name != "." && strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case filepath.Ext(path) == ".md":
			all = append(all, ofPage(t, name)...)
		case filepath.Ext(path) == ".go" && !strings.HasSuffix(path, "_test.go"):
			all = append(all, ofPackage(t, name)...)
		}
		return nil
	}))
	return all
}

// ofPage returns the Go blocks of a Markdown page, of those that show a change the lines added, and the column "use" of its tables.
func ofPage(t *testing.T, page string) []snippet {
	b, err := os.ReadFile(filepath.Join(root, page))
	require.NoError(t, err)
	text := string(b)
	var all []snippet
	add := func(from, to int, code string) {
		all = append(all, snippet{page, 1 + strings.Count(text[:from], "\n"), code})
	}
	for _, m := range fence.FindAllStringSubmatchIndex(text, -1) {
		code := text[m[2]:m[3]]
		if changed.MatchString(code) {
			code = strings.ReplaceAll(removed.ReplaceAllString(code, ""), "+\t", "\t")
		}
		add(m[2], m[3], code)
	}
	for _, table := range useTable.FindAllStringSubmatchIndex(text, -1) {
		for _, m := range useColumn.FindAllStringSubmatchIndex(text[table[2]:table[3]], -1) {
			from, to := table[2]+m[2], table[2]+m[3]
			add(from, to, text[from:to]+"\n")
		}
	}
	return all
}

// ofPackage returns the code in the package comment of a Go file. Drawings have lines that no code has.
func ofPackage(t *testing.T, name string) []snippet {
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, filepath.Join(root, name), nil, parser.ParseComments|parser.PackageClauseOnly)
	require.NoError(t, err)
	if f.Doc == nil || f.Name.Name == "main" { // a command's has lines of a shell
		return nil
	}
	var all []snippet
	for _, block := range new(comment.Parser).Parse(f.Doc.Text()).Content {
		if code, ok := block.(*comment.Code); ok && !strings.Contains(code.Text, "──") {
			all = append(all, snippet{name, files.Position(f.Doc.Pos()).Line, code.Text})
		}
	}
	return all
}

// What a fragment may use without declaring it is in testdata/around.go.
func TestTheCodeOfThePagesCompiles(t *testing.T) {
	around, err := os.ReadFile("testdata/around.go")
	require.NoError(t, err)
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, "around.go", around, 0)
	require.NoError(t, err)
	imports := string(around[parsed.Name.End()-1 : parsed.Decls[0].End()])
	exported := exports(t, parsed.Imports)
	all := snippets(t)
	require.Greater(t, len(all), 30)
	for _, s := range all {
		t.Run(s.String(), func(t *testing.T) {
			source := fmt.Sprintf("package page\n%s\nfunc _() error {\n//line %s\n%s\nreturn nil\n}", imports, s, s.code)
			switch {
			case s.isProgram():
				source = fmt.Sprintf("//line %s\n%s", s, s.code)
			case s.isFunc():
				source = fmt.Sprintf("package page\n%s\n//line %s\n%s", imports, s, s.code)
			case strings.HasPrefix(strings.TrimSpace(s.code), `"`):
				source = fmt.Sprintf("package page\nimport (\n//line %s\n%s)", s, s.code)
			}
			f, err := parser.ParseFile(files, "page.go", source, 0)
			require.NoError(t, err)
			check := types.Config{Importer: exported, Error: func(err error) {
				if text := err.Error(); !strings.Contains(text, "declared and not used") && !strings.HasSuffix(text, "imported and not used") {
					t.Error(err)
				}
			}}
			together := []*ast.File{f}
			if !s.isProgram() {
				together = append(together, parsed)
			}
			_, _ = check.Check("page", files, together, nil) // Error has reported what counts
		})
	}
}

// exports returns an importer for packages, by what the compiler has exported of them.
func exports(t *testing.T, packages []*ast.ImportSpec) types.Importer {
	args := []string{"list", "-export", "-deps", "-f", "{{if .Export}}{{.ImportPath}} {{.Export}}{{end}}"}
	for _, spec := range packages {
		args = append(args, strings.Trim(spec.Path.Value, `"`))
	}
	found := make(map[string]string)
	for line := range strings.Lines(run(t, root, nil, args...)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		found[path] = file
	}
	return importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) { return os.Open(found[path]) })
}

// run runs the go command and returns its output.
func run(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Run(), "go %v: %s", args, &errs)
	return out.String()
}

// The program of a page runs in a module that has nothing else, and prints what its comments say. Nothing is downloaded: the new module
// requires what this one does.
func TestTheProgramsOfThePagesRun(t *testing.T) {
	programs := 0
	begun := make(map[string]bool) // a translation holds the same program, but for its comments
	for _, s := range snippets(t) {
		if !s.isProgram() {
			continue
		}
		programs++
		var want strings.Builder
		for _, m := range prints.FindAllStringSubmatch(s.code, -1) {
			want.WriteString(m[1] + "\n")
		}
		program := comments.ReplaceAllString(s.code, "") + want.String()
		if begun[program] {
			continue
		}
		begun[program] = true
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(s.code), 0o600))
			sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600))
			mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), mod, 0o600))
			here, err := filepath.Abs(root)
			require.NoError(t, err)
			offline := []string{"GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off"}
			const us = "github.com/peerlane/peerlane"
			run(t, dir, offline, "mod", "edit", "-module=example.org/program", "-require="+us+"@v0.0.0", "-replace="+us+"="+here)
			require.NotEmpty(t, want.String(), "the program says what it prints")
			require.Equal(t, want.String(), run(t, dir, offline, "run", "."))
		})
	}
	require.GreaterOrEqual(t, programs, 2, "README.md and README.zh-CN.md")
}

var ownConfig = regexp.MustCompile(`peerlane\.(Client|Server)Config\{`)

// A config that does not start from the defaults has no retries and no compression: what users copy does not do that, and neither does the
// command.
func TestWhatUsersCopyStartsFromTheDefaults(t *testing.T) {
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		name := filepath.ToSlash(path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "internal" || d.Name() == "bench"):
			return filepath.SkipDir
		case filepath.Ext(name) == ".md", strings.HasPrefix(d.Name(), "example_"), strings.Contains(name, "/examples/"), strings.Contains(name, "/cmd/"):
		default:
			return nil
		}
		if filepath.Ext(name) != ".md" && filepath.Ext(name) != ".go" {
			return nil
		}
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Empty(t, ownConfig.FindAllString(string(b), -1), name)
		return nil
	}))
}

// README.md is read by people who have five minutes.
func TestReadmeIsShort(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	require.LessOrEqual(t, strings.Count(string(b), "\n"), 120)
}

func TestBothReadmesHaveTheSameCode(t *testing.T) {
	require.Equal(t, blocks(t, "README.md"), blocks(t, "README.zh-CN.md"))
}

var (
	fenced   = regexp.MustCompile("(?s)```.*?```")
	comments = regexp.MustCompile(`(?m)\s*(//|#).*$`)
)

// blocks returns the fenced blocks of a page without their comments, which are translated.
func blocks(t *testing.T, page string) []string {
	text, err := os.ReadFile(filepath.Join(root, page))
	require.NoError(t, err)
	all := fenced.FindAllString(string(text), -1)
	for i := range all {
		all[i] = comments.ReplaceAllString(all[i], "")
	}
	return all
}

var link = regexp.MustCompile(`\]\(([^):#]+)(?:#([^)]*))?\)`)

// Links to files of the project lead somewhere, and links to a section to one that is there.
func TestTheLinksOfThePagesLeadSomewhere(t *testing.T) {
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(string(b), ""), -1) {
			to := filepath.Join(filepath.Dir(path), m[1])
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: %v", path, err)
			} else if m[2] != "" && !hasSection(t, to, m[2]) {
				t.Errorf("%s: %s has no section %q", path, m[1], m[2])
			}
		}
		return nil
	}))
}

var notInAnchor = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)

func hasSection(t *testing.T, page, anchor string) bool {
	b, err := os.ReadFile(page)
	require.NoError(t, err)
	for line := range strings.Lines(string(b)) {
		title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		if ok && strings.HasPrefix(line, "#") &&
			strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), ""), " ", "-") == anchor {
			return true
		}
	}
	return false
}
