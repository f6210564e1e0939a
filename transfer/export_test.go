package transfer

import (
	"testing"

	"github.com/peerlane/peerlane/transfer/internal/staging"
)

// SetDisk has receivers work on what wrap makes of their disks, until the test ends.
func SetDisk(t testing.TB, wrap func(staging.FS) staging.FS) {
	was := openRoot
	t.Cleanup(func() { openRoot = was })
	openRoot = func(dir string) (staging.FS, error) {
		disk, err := was(dir)
		if err != nil {
			return nil, err
		}
		return wrap(disk), nil
	}
}
