package session

import (
	"go/ast"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/packages"
)

// mostUp is how many references from a file to one of a higher layer there may be. There are 14: the concerns that Session has as fields,
// the two kinds of handlers of a Mux, the message of a hook, the two numbers that progress reads, and MaxRequests, which begins a drain.
const mostUp = 14

var (
	layerRow  = regexp.MustCompile("(?m)^\\| (doors|life|lanes|core|words) \\| (`[^|]*`) \\|")
	layerFile = regexp.MustCompile("`([a-z_]+\\.go)`")
)

// layers returns the layer of each file, as ARCHITECTURE.md has them: 1 is the lowest.
func layers(t *testing.T) map[string]int {
	page, err := os.ReadFile(filepath.Join("..", "docs", "ARCHITECTURE.md"))
	require.NoError(t, err)
	rows := layerRow.FindAllStringSubmatch(string(page), -1)
	require.Len(t, rows, 5)
	of := make(map[string]int)
	for i, row := range rows {
		for _, file := range layerFile.FindAllStringSubmatch(row[2], -1) {
			require.Zero(t, of[file[1]], "%s is in two layers", file[1])
			of[file[1]] = len(rows) - i
		}
	}
	return of
}

// The files of the package form the layers of ARCHITECTURE.md: what a file uses is declared in its own layer or a lower one.
func TestTheFilesFormLayers(t *testing.T) {
	of := layers(t)
	loaded, err := packages.Load(&packages.Config{Mode: packages.LoadSyntax}, ".")
	require.NoError(t, err)
	require.Len(t, loaded, 1)
	pkg := loaded[0]
	require.Empty(t, pkg.Errors)
	up := make(map[string]bool)
	for _, file := range pkg.Syntax {
		from := filepath.Base(pkg.Fset.Position(file.Pos()).Filename)
		require.NotZero(t, of[from], "ARCHITECTURE.md has no layer for %s", from)
		for n := range ast.Preorder(file) {
			id, is := n.(*ast.Ident)
			if !is || !isShared(pkg.TypesInfo.Uses[id], pkg.Types) {
				continue
			}
			to := filepath.Base(pkg.Fset.Position(pkg.TypesInfo.Uses[id].Pos()).Filename)
			if of[to] > of[from] {
				up[from+" uses "+to] = true
			}
		}
	}
	all := slices.Sorted(maps.Keys(up))
	require.LessOrEqual(t, len(all), mostUp, "%s", strings.Join(all, "\n"))
}

// isShared reports whether o is declared in pkg where other files see it: a declaration of the package, a field or a method.
func isShared(o types.Object, pkg *types.Package) bool {
	if o == nil || o.Pkg() != pkg {
		return false
	}
	switch o := o.(type) {
	case *types.Var:
		return o.IsField() || o.Parent() == pkg.Scope()
	case *types.Func:
		return true
	}
	return o.Parent() == pkg.Scope()
}
