package manifest

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// checkPortable reports a component that Windows cannot keep under its own name.
func checkPortable(p, name string) *fault.Error {
	if i := strings.IndexAny(name, `:<>"|?*`); i >= 0 {
		return unsafef(p, "the name has a %q in it, which Windows does not take: rename it", name[i])
	}
	if last := name[len(name)-1]; last == '.' || last == ' ' {
		return unsafef(p, "the name ends with a dot or a space, which Windows drops: rename it")
	}
	if isDevice(name) {
		return unsafef(p, "%q is a device on Windows: rename it", name)
	}
	if isShortStaging(name) {
		return unsafef(p, "%q may be Windows' short name for a folder %s: rename it", name, StagingPrefix)
	}
	return nil
}

// isDevice reports a name that opens a device on Windows: also with an extension, and with spaces before that.
func isDevice(name string) bool {
	if !strings.ContainsRune("CPANLcpanl", rune(name[0])) { // most are none
		return false
	}
	base, _, _ := strings.Cut(name, ".")
	if base = strings.TrimRight(base, " "); len(base) < len("NUL") || len(base) > len("CONOUT$") {
		return false
	}
	base = strings.ToUpper(base)
	switch base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$":
		return true
	}
	digit, found := strings.CutPrefix(base, "COM")
	if !found {
		digit, found = strings.CutPrefix(base, "LPT")
	}
	if !found {
		return false
	}
	switch digit {
	case "¹", "²", "³":
		return true
	}
	return len(digit) == 1 && digit[0] >= '0' && digit[0] <= '9'
}

// isShortStaging reports what NTFS may call a staging directory beside its name: XFER-1~1, or XF01AB~1.
func isShortStaging(name string) bool {
	base, _, _ := strings.Cut(name, ".")
	if len(base) > 8 || len(base) < 4 || !strings.EqualFold(base[:2], "xf") {
		return false
	}
	_, number, found := strings.Cut(base, "~")
	return found && number != "" && strings.Trim(number, "0123456789") == ""
}

// folding keeps the room in which names are folded, and what letters became: those of a folder's names are few.
type folding struct {
	decomposed norm.Iter
	key        []byte
	letters    [256]struct{ from, to rune } // by their last byte
}

// fold returns what names have in common that Windows or macOS may take for one: without case, decomposed as NFC and NFD agree on,
// and without the characters that HFS+ does not see. It is not for showing.
func fold(name string) string {
	if isASCII(name) {
		return strings.ToLower(name) // which returns name itself when it is so already
	}
	var f folding
	return string(f.fold(name))
}

// fold is fold into f's room, where it is until the next one.
func (f *folding) fold(name string) []byte {
	if isASCII(name) {
		f.key = append(f.key[:0], name...)
		for i, c := range f.key {
			if 'A' <= c && c <= 'Z' {
				f.key[i] = c - 'A' + 'a'
			}
		}
		return f.key
	}
	f.key = f.key[:0]
	for f.decomposed.InitString(norm.NFD, name); !f.decomposed.Done(); {
		f.append(f.decomposed.Next())
	}
	return f.key
}

// append appends a part of a name, decomposed.
func (f *folding) append(part []byte) {
	for len(part) > 0 {
		r, n := utf8.DecodeRune(part)
		part = part[n:]
		switch {
		case r < utf8.RuneSelf:
			f.key = append(f.key, byte(unicode.ToLower(r)))
		case f.letters[r&0xff].from == r:
			f.key = utf8.AppendRune(f.key, f.letters[r&0xff].to)
		case unicode.Is(unicode.Cf, r):
		case foldsToMany(r):
			f.key = append(f.key, cases.Fold().String(string(r))...)
		default:
			to := foldRune(r)
			f.letters[r&0xff].from, f.letters[r&0xff].to = r, to
			f.key = utf8.AppendRune(f.key, to)
		}
	}
}

// foldRune returns the first of the letters that differ from r by case only, in small when it is ASCII.
func foldRune(r rune) rune {
	least := r
	for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
		least = min(least, other)
	}
	return unicode.To(unicode.LowerCase, least)
}

// foldsToMany reports a letter that is several without case, and that NFD has not taken apart.
func foldsToMany(r rune) bool {
	return r == 'ß' || r == 'ẞ' || r == 'ŉ' || r == 'և' || r == 'ẚ' || r >= 0xfb00 && r <= 0xfb17
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
