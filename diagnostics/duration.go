package diagnostics

import "github.com/peerlane/peerlane/internal/registry"

// A Duration is a time.Duration that is a number of milliseconds in JSON.
type Duration = registry.Duration
