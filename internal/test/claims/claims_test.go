// Package claims has the test that each documented promise has a test: every exported field, limit, default and sentinel error of every
// public package is named by one, in a comment.
//
//	// Claim: transfer.Ref.Token
//	func TestTokensHaveAtMost64Bytes(t *testing.T) {
package claims

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../../.."

// isPublic reports whether a folder of the module has a package for others.
func isPublic(dir string) bool {
	for part := range strings.SplitSeq(filepath.ToSlash(dir), "/") {
		switch part {
		case "internal", "cmd", "examples", "bench", "testdata", "docs":
			return false
		}
	}
	return true
}

// source is one parsed file of the module.
type source struct {
	path string
	file *ast.File
}

// parse returns the files of the module, those of tests and of internal packages apart.
func parse(t *testing.T) (files *token.FileSet, code, hidden, tests []source) {
	files = token.NewFileSet()
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		switch {
		case d.IsDir() && (name == "bench" || name == filepath.Join("internal", "test", "claims") || name != "." && strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(name) != ".go":
			return nil
		}
		f, err := parser.ParseFile(files, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		switch {
		case strings.HasSuffix(name, "_test.go"):
			tests = append(tests, source{name, f})
		case isPublic(filepath.Dir(name)):
			code = append(code, source{name, f})
		case slices.Contains(strings.Split(filepath.ToSlash(name), "/"), "internal"):
			hidden = append(hidden, source{name, f})
		}
		return nil
	}))
	return files, code, hidden, tests
}

// names returns what the public packages promise: pkg.Type.Field of each exported struct, pkg.Name of each limit, default and other plain
// constant, and of each sentinel error, the Codes of transfers among them. The other constants of a type of their own, as States, are what
// its String and its users tell apart, and the codes of a wire are its specification's. An alias of a hidden struct promises its fields.
func names(code, hidden []source) map[string]bool {
	all := make(map[string]bool)
	structs := make(map[string]*ast.StructType) // the hidden ones, by package and name
	for _, s := range hidden {
		ast.Inspect(s.file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if st, ok := spec.Type.(*ast.StructType); ok {
					structs[s.file.Name.Name+"."+spec.Name.Name] = st
				}
			}
			return true
		})
	}
	for _, s := range code {
		pkg := s.file.Name.Name
		for _, decl := range s.file.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					st, _ := spec.Type.(*ast.StructType)
					if sel, ok := spec.Type.(*ast.SelectorExpr); ok && spec.Assign.IsValid() {
						if from, ok := sel.X.(*ast.Ident); ok {
							st = structs[from.Name+"."+sel.Sel.Name]
						}
					}
					fields(all, pkg, spec.Name, st)
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						isError := d.Tok == token.VAR && strings.HasPrefix(name.Name, "Err")
						isLimit := d.Tok == token.CONST && spec.Type == nil && len(spec.Values) > 0 && !isConversion(spec)
						isCode := d.Tok == token.CONST && strings.HasPrefix(name.Name, "Code") && strings.HasPrefix(filepath.ToSlash(s.path), "transfer/")
						if name.IsExported() && (isError || isLimit || isCode) {
							all[pkg+"."+name.Name] = true
						}
					}
				}
			}
		}
	}
	return all
}

// further returns what else a test may name: the exported functions and methods, and the other constants.
func further(code []source) map[string]bool {
	all := make(map[string]bool)
	for _, s := range code {
		pkg := s.file.Name.Name
		for _, decl := range s.file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				all[pkg+"."+receiver(d)+d.Name.Name] = d.Name.IsExported()
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok {
						for _, name := range v.Names {
							all[pkg+"."+name.Name] = name.IsExported()
						}
					}
				}
			}
		}
	}
	return all
}

// receiver returns the type of a method and a dot, or nothing.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return ""
	}
	t := d.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name + "."
	}
	return ""
}

// isConversion reports whether the value of a constant has a type of its own, as Code("lost"), or is another package's.
func isConversion(spec *ast.ValueSpec) bool {
	for _, v := range spec.Values {
		switch v := v.(type) {
		case *ast.CallExpr:
			return true
		case *ast.SelectorExpr:
			return v != nil
		}
	}
	return false
}

func fields(all map[string]bool, pkg string, of *ast.Ident, st *ast.StructType) {
	if st == nil || !of.IsExported() {
		return
	}
	for _, f := range st.Fields.List {
		for _, name := range f.Names { // an embedded one has none, and has its fields elsewhere
			if name.IsExported() {
				all[pkg+"."+of.Name+"."+name.Name] = true
			}
		}
	}
}

var (
	claimLine = regexp.MustCompile(`(?m)^\s*(?://)?\s*Claim:\s*(.*)$`)
	claimName = regexp.MustCompile(`^[a-z0-9]+(\.[A-Z]\w*){1,2}$`)
)

// held returns the claims of the tests, with where they are, and what is wrong with any.
func held(files *token.FileSet, tests []source) (claims map[string]string, wrong []string) {
	claims = make(map[string]string)
	inFolder := make(map[string]map[string]bool) // the names that the code of its tests has
	for _, s := range tests {
		used := inFolder[filepath.Dir(s.path)]
		if used == nil {
			used = make(map[string]bool)
			inFolder[filepath.Dir(s.path)] = used
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				used[id.Name] = true
			}
			return true
		})
	}
	for _, s := range tests {
		used := inFolder[filepath.Dir(s.path)]
		var funcs []*ast.FuncDecl
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				funcs = append(funcs, f)
			}
		}
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				m := claimLine.FindStringSubmatch(strings.TrimPrefix(c.Text, "//"))
				if m == nil {
					continue
				}
				at := files.Position(c.Pos()).String()
				if !ofTest(funcs, c) {
					wrong = append(wrong, at+": the comment is not a test's")
				}
				for name := range strings.SplitSeq(m[1], ",") {
					name = strings.TrimSuffix(strings.TrimSpace(name), ".")
					switch {
					case !claimName.MatchString(name):
						wrong = append(wrong, at+": "+name+" is no name")
					case !used[name[strings.LastIndex(name, ".")+1:]]:
						wrong = append(wrong, at+": no code of the tests here names "+name)
					}
					claims[name] = at
				}
			}
		}
	}
	return claims, wrong
}

// ofTest reports whether a comment is at or in a test function.
func ofTest(funcs []*ast.FuncDecl, c *ast.Comment) bool {
	for _, f := range funcs {
		from := f.Pos()
		if f.Doc != nil {
			from = f.Doc.Pos()
		}
		if from <= c.Pos() && c.End() <= f.End() {
			return strings.HasPrefix(f.Name.Name, "Test") || strings.HasPrefix(f.Name.Name, "Fuzz")
		}
	}
	return false
}

func TestEveryDocumentedPromiseHasATest(t *testing.T) {
	files, code, hidden, tests := parse(t)
	promised, others := names(code, hidden), further(code)
	require.Greater(t, len(promised), 400)
	claims, wrong := held(files, tests)
	require.Empty(t, wrong)
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(promised)) {
		_, isHeld := claims[name]
		switch open := notYet[name]; {
		case isHeld && open:
			t.Errorf("%s is held, at %s: take it off the list in open_test.go", name, claims[name])
		case !isHeld && !open:
			missing = append(missing, name)
		}
	}
	for name, at := range claims {
		if !promised[name] && !others[name] {
			t.Errorf("%s: %s is not promised any more, or never was", at, name)
		}
	}
	for name := range notYet {
		if !promised[name] {
			t.Errorf("%s is not promised any more: take it off the list in open_test.go", name)
		}
	}
	if len(missing) > 0 {
		t.Errorf("no test names these with // Claim: %d of %d\n%s", len(missing), len(promised), strings.Join(missing, "\n"))
	}
	t.Logf("%d promises, %d held, %d not yet", len(promised), len(promised)-len(notYet)-len(missing), len(notYet))
}
