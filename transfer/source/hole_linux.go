package source

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// What lseek takes beside io.SeekStart and its like.
const (
	seekData = 3
	seekHole = 4
)

// mayHaveHoles reports a file with less on the disk than in it.
func mayHaveHoles(fi fs.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && st.Blocks*512 < fi.Size()
}

func hasHole(f *os.File, size int64) bool {
	at, err := f.Seek(0, seekHole)
	return err == nil && at < size
}

// holeAt returns where what is at off ends, and whether that is a hole. Where the file system does not tell, all is data.
func holeAt(f *os.File, off, size int64) (int64, bool) {
	data, err := f.Seek(off, seekData)
	switch {
	case errors.Is(err, syscall.ENXIO):
		return size, true
	case err != nil:
		return size, false
	case data > off:
		return min(data, size), true
	}
	end, err := f.Seek(off, seekHole)
	if err != nil || end <= off {
		return size, false
	}
	return min(end, size), false
}
