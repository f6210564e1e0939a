package main

import (
	"fmt"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/peerlane/peerlane/transfer/source"
)

// hashing shows how far the hashing of a tree is.
type hashing struct {
	d     *display
	tree  *source.Tree
	bar   *mpb.Bar // on a terminal
	began time.Time
	told  time.Time
}

func newHashing(d *display, tree *source.Tree) *hashing {
	h := &hashing{d: d, tree: tree, began: time.Now(), told: time.Now()}
	if d.tty {
		h.bar = d.begin(mpb.PrependDecorators(decor.Name("reading ")),
			mpb.AppendDecorators(decor.Percentage(decor.WCSyncSpace), decor.Name(" of "+bytesText(float64(tree.Bytes())))))
		h.bar.SetTotal(max(1, tree.Bytes()), false)
	}
	return h
}

// progress is for source.Tree.Hash.
func (h *hashing) progress(files int, n int64) {
	if h.bar != nil {
		h.bar.SetCurrent(n)
		return
	}
	if time.Since(h.told) >= h.d.every {
		h.told = time.Now()
		h.d.printf("%s", fmt.Sprintf("reading: %d of %s, %s of %s", files, filesText(h.tree.Files()), bytesText(float64(n)), bytesText(float64(h.tree.Bytes()))))
	}
}

// end ends the display.
func (h *hashing) end() {
	if h.bar != nil {
		h.bar.Abort(true)
		h.d.end()
	}
}
