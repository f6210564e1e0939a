package source

import (
	"fmt"
	"strings"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// LeftOut counts the items that Walk found and left out. A folder counts once, with everything in it.
type LeftOut struct {
	Symlinks int // not sent, or leading out of the transfer
	Special  int // devices, FIFOs, sockets, files such as those of /proc
	Denied   int // unreadable by this user
	Names    int // rejected by the Rules
}

// reason is the reason why an item is left out.
type reason uint8

const (
	notNamed reason = iota // the zero value: CheckPath's
	notSent
	notFollowed
)

func (l *LeftOut) add(e *fault.Error, why reason) {
	switch {
	case e.Code == fault.CodeDenied:
		l.Denied++
	case why == notSent:
		l.Special++
	case why == notFollowed:
		l.Symlinks++
	default:
		l.Names++
	}
}

// Count returns the total number of items.
func (l LeftOut) Count() int { return l.Symlinks + l.Special + l.Denied + l.Names }

// String returns text such as "2 symlinks, 1 unreadable", or "" if nothing was left out.
func (l LeftOut) String() string {
	var parts []string
	for _, p := range []struct {
		n         int
		one, many string
	}{
		{l.Symlinks, "symlink", "symlinks"},
		{l.Special, "special file", "special files"},
		{l.Denied, "unreadable", "unreadable"},
		{l.Names, "name that cannot be sent", "names that cannot be sent"},
	} {
		switch p.n {
		case 0:
		case 1:
			parts = append(parts, "1 "+p.one)
		default:
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.many))
		}
	}
	return strings.Join(parts, ", ")
}
