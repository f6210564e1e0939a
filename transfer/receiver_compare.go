package transfer

import (
	"cmp"
	"errors"
	"io/fs"
	"os"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// readsExisting reports whether the content of existing files is compared.
func (r *receiver) readsExisting() bool {
	return r.o.Checksum || r.o.Verify == VerifyAll && r.hashed
}

// compare hashes an existing file. If the manifest has no hashes, it queues the file for the schedule to ask for its root.
func (r *receiver) compare(e *manifest.Entry, id uint32) error {
	if e.Size == 0 {
		return r.adopt(id)
	}
	root, err := r.rootOfExisting(e)
	switch {
	case err != nil:
		return err
	case !r.hashed:
		r.files[id] = fileUnsure
		r.unsure[id] = &unsure{root: root}
		r.unasked = append(r.unasked, id)
		return nil
	case root != b3tree.Root(e.Hash):
		return r.differs(id)
	}
	return r.adopt(id)
}

// adopt takes the file that is in its place.
func (r *receiver) adopt(id uint32) error {
	r.files[id] = filePlaced
	if r.st.Published(id) {
		return nil
	}
	return r.st.Adopt(id)
}

// differs resets a file whose existing content is wrong, so that it is fetched. Without Overwrite it returns a CodeExists error.
func (r *receiver) differs(id uint32) error {
	if !r.o.Overwrite {
		return r.existsError(id)
	}
	r.files[id] = fileNew
	return r.st.Reset(id)
}

func (r *receiver) existsError(id uint32) error {
	return &Error{
		Op: "compare", Path: r.entries[id].Path, Area: AreaDestination, Code: CodeExists,
		Text: "the destination has a file with the same size and time, but different content",
	}
}

// rootOfExisting returns the root of the file in the place of e.
func (r *receiver) rootOfExisting(e *manifest.Entry) (root b3tree.Root, err error) {
	f, err := r.disk.OpenFile(e.Path, os.O_RDONLY, 0)
	if err != nil {
		return root, compareError(e, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	shape, err := b3tree.ShapeOf(e.Size)
	if err != nil {
		return root, err
	}
	buf := make([]byte, shape.PieceSize())
	cvs := make([]b3tree.CV, shape.Pieces())
	for i := range cvs {
		if r.ctx.Err() != nil {
			return root, r.ctx.Err() // begin knows why
		}
		off, n := shape.Span(i)
		if _, err := f.ReadAt(buf[:n], off); err != nil {
			return root, compareError(e, err)
		}
		if len(cvs) == 1 {
			return b3tree.Sum(buf[:n]), nil
		}
		if cvs[i], err = shape.PieceCV(i, buf[:n]); err != nil {
			return root, err
		}
	}
	return shape.Fold(cvs)
}

// compareError wraps an error from reading an existing file.
func compareError(e *manifest.Entry, err error) error {
	failed := &Error{Op: "compare", Path: e.Path, Area: AreaDestination, Code: CodeIO, Err: err}
	if errors.Is(err, fs.ErrPermission) {
		failed.Code, failed.Text = CodeDenied, "this user may not read what is there"
	}
	return failed
}

// comparedLocked handles the sender's root of an existing file.
func (r *receiver) comparedLocked(o *origin, u *unsure, said wire.Root) {
	id := said.File
	delete(r.unsure, id)
	o.unsure--
	var err error
	switch {
	case u.root == b3tree.Root(said.Root):
		err = r.isSameLocked(id)
	case r.o.Overwrite:
		err = r.replaceLocked(o, id)
	default:
		r.left--
		r.stuck = append(r.stuck, r.existsError(id))
		r.kick()
	}
	if err != nil {
		r.fail(err)
		return
	}
	r.planLocked(o)
}

// isSameLocked takes an existing file whose content is the sender's.
func (r *receiver) isSameLocked(id uint32) error {
	if err := r.adopt(id); err != nil {
		return err
	}
	size := r.entries[id].Size
	r.left--
	r.t.meter.filesDone.Add(1)
	r.t.meter.resumed.Add(size)
	r.t.meter.verified.Add(size)
	if r.left == len(r.whole) {
		r.kick()
	}
	return nil
}

// replaceLocked has a file fetched whose existing content is not the sender's. The file stays fileUnsure until the disk has forgotten it, so
// that no data of it is accepted before. It releases mu meanwhile.
func (r *receiver) replaceLocked(o *origin, id uint32) error {
	if err := r.resetLocked(o, id); err != nil {
		return err
	}
	if r.files[id] == fileUnsure { // it has not failed meanwhile
		r.renew(id)
	}
	return nil
}

// owedLocked returns how many bytes an origin must hash to answer for the existing files that it was asked for.
func (r *receiver) owedLocked(o *origin) (bytes int64) {
	if o.unsure == 0 {
		return 0
	}
	for id, u := range r.unsure {
		if u.asked == &o.supplier {
			bytes += cmp.Or(r.entries[id].Size, 1)
		}
	}
	return bytes
}
