package metrics

import (
	"strings"
	"sync"

	"github.com/peerlane/peerlane/internal/registry"
)

// MaxTags bounds the values of the label tag, "other" not counted.
const MaxTags = registry.MaxTags

// tagSet is the tags that have a value of their own. The zero value is ready.
type tagSet struct {
	mu    sync.Mutex
	names map[string]string // the value of each
}

// name returns the value of the label for a tag. It is always the same.
func (s *tagSet) name(tag string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name, ok := s.names[tag]; ok {
		return name
	}
	if tag == registry.OtherTag || len(s.names) >= MaxTags {
		return registry.OtherTag
	}
	if s.names == nil {
		s.names = make(map[string]string)
	}
	name := strings.ToValidUTF8(tag, "\uFFFD") // Prometheus takes nothing else
	s.names[tag] = name
	return name
}

// knownTags are the tags that a Client or Server has counts for, and the values of the label.
type knownTags map[string]string

// name returns the value for a tag: "other" for one that the counts of the Client or Server have no place for.
func (k knownTags) name(tag string) string {
	if name, ok := k[tag]; ok {
		return name
	}
	return registry.OtherTag
}
