package manifest

import (
	"path"
	"runtime"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// StagingPrefix begins the name of every directory in which a receiver keeps what has come. No entry may have such a component: it
// would write into the state of a transfer.
const StagingPrefix = ".xfer-"

// Caps on paths.
const (
	MaxComponent = 255 // bytes of a component
	MaxDepth     = 255 // components of a path
)

// Rules say what a receiver takes.
type Rules struct {
	// Portable refuses names that Windows or macOS cannot keep, and two names that they take for one.
	Portable bool
	// Symlinks takes them: relative ones, to inside the transfer.
	Symlinks bool
	// Entries is how many there may be, with the folders that paths imply. If zero, 1,000,000.
	Entries int
	// Bytes is how many all files may have together. If zero, 2^50.
	Bytes int64
	// ManifestBytes is how many the encoded entries may have. If zero, 256 MiB.
	ManifestBytes int64
}

// LocalRules returns the rules for a destination on this system: portable on Windows and macOS, and no symlinks.
func LocalRules() Rules {
	return Rules{Portable: runtime.GOOS == "windows" || runtime.GOOS == "darwin" || runtime.GOOS == "ios"}
}

func (r Rules) withDefaults() Rules {
	if r.Entries == 0 {
		r.Entries = 1_000_000
	}
	if r.Bytes == 0 {
		r.Bytes = 1 << 50
	}
	if r.ManifestBytes == 0 {
		r.ManifestBytes = 256 << 20
	}
	return r
}

func (r Rules) validate() error {
	for name, n := range map[string]int64{"Entries": int64(r.Entries), "Bytes": r.Bytes, "ManifestBytes": r.ManifestBytes} {
		if n < 0 {
			return errorf(fault.CodeTooLarge, "", "Rules.%s is %d, want none or more than 0", name, n)
		}
	}
	return nil
}

// CheckPath reports, as an *Error, a path that is not one below the destination by its text alone: it is valid UTF-8 in components
// between single slashes, none of them ".", ".." or a staging directory's, without control characters and backslashes, and it
// equals path.Clean of itself. Of rules, Portable counts.
func CheckPath(p string, rules Rules) error {
	switch {
	case p == "":
		return unsafef(p, "the path is empty")
	case len(p) > MaxPath:
		return errorf(fault.CodeTooLarge, p, "the path has %d bytes, and %d are the most: shorten its folders' names", len(p), MaxPath)
	case p[0] == '/':
		return unsafef(p, "the path begins at the root of a disk: send paths from the folder that is sent")
	}
	if err := checkText(p); err != nil {
		return err
	}
	depth := 0
	for name := range strings.SplitSeq(p, "/") {
		if depth++; depth > MaxDepth {
			return errorf(fault.CodeTooLarge, p, "the path has more than %d folders in each other", MaxDepth)
		}
		if name == ".." || name == "." || name == "" {
			return unsafef(p, "the path has %q for a name: send paths without it", name)
		}
		if err := checkName(p, name, rules); err != nil {
			return err
		}
	}
	if p != path.Clean(p) {
		return unsafef(p, "the path is not in its shortest form")
	}
	return nil
}

// CheckTarget reports a symlink at p, a path that CheckPath takes, whose target is not taken: it is relative, in its shortest form,
// and it stays inside the transfer. In that form ".." is in front only, where it goes up from the folder that the link is in: what
// follows may run through other links, and each of them stays inside as well.
func CheckTarget(p, target string, rules Rules) error {
	switch {
	case target == "":
		return unsafef(p, "the link leads nowhere")
	case len(target) > MaxPath:
		return errorf(fault.CodeTooLarge, p, "the link's target has %d bytes, and %d are the most", len(target), MaxPath)
	case target[0] == '/':
		return unsafef(p, "the link leads to %q: only relative ones are taken", target)
	case target != path.Clean(target):
		return unsafef(p, "the link's target %q is not in its shortest form, which is %q", target, path.Clean(target))
	}
	if err := checkText(target); err != nil {
		return unsafef(p, "the link's target %q: %s", target, err.Text)
	}
	if inside := path.Join(path.Dir(p), target); inside == ".." || strings.HasPrefix(inside, "../") {
		return unsafef(p, "the link leads to %q, which is outside of what is sent", target)
	}
	for name := range strings.SplitSeq(target, "/") {
		if name == ".." || name == "." {
			continue
		}
		if err := checkName(p, name, rules); err != nil {
			err.Text = "the link's target: " + err.Text
			return err
		}
	}
	return nil
}

// checkText reports what is no text of a path.
func checkText(p string) *fault.Error {
	if !utf8.ValidString(p) {
		return unsafef(p, "the name is not UTF-8: rename it")
	}
	for _, r := range p {
		if unicode.IsControl(r) {
			return unsafef(p, "the name has the control character %U in it: rename it", r)
		}
		if r == '\\' {
			return unsafef(p, `the name has a \ in it, which divides folders on Windows: rename it`)
		}
	}
	return nil
}

// checkName reports a component that is not taken, of the path p.
func checkName(p, name string, rules Rules) *fault.Error {
	if len(name) > MaxComponent {
		return errorf(fault.CodeTooLarge, p, "the name %.20q... has %d bytes, and %d are the most: shorten it", name, len(name), MaxComponent)
	}
	if isStaging(name) {
		return unsafef(p, "%q is where transfers keep their state: such names are not sent", name)
	}
	if !rules.Portable {
		return nil
	}
	return checkPortable(p, name)
}

// isStaging reports a name that may be a staging directory's on some system, whatever the case of its letters, and whatever is in it
// that macOS does not see.
func isStaging(name string) bool {
	if isASCII(name) {
		return len(name) >= len(StagingPrefix) && strings.EqualFold(name[:len(StagingPrefix)], StagingPrefix)
	}
	if first, _ := utf8.DecodeRuneInString(name); first != '.' && !unicode.Is(unicode.Cf, first) {
		return false
	}
	return strings.HasPrefix(fold(name), StagingPrefix)
}
