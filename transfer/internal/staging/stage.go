package staging

import (
	"fmt"
	"slices"
)

// stage is how far a file is on its way to its name:
//
//	none ──> pieces ───────────────> linked ──┐
//	  └────> whole ──> flushed ──┬─> named ───┴─> published
//
// Adopt leads from any stage to linked or named, a failed sync from whole to none, and forget, which Reset calls, from any stage to none. Open
// takes the stage from the journal.
type stage uint8

const (
	stageNone      stage = iota // there is no part, or none that counts
	stagePieces                 // the part for pieces exists
	stageWhole                  // WriteFile has written the part, which is not durable
	stageFlushed                // and is durable now
	stageLinked                 // the file is in its place, and the part still exists; the journal is not told yet
	stageNamed                  // likewise, without the part
	stagePublished              // the journal has it
)

func (s stage) String() string {
	return [...]string{"none", "pieces", "whole", "flushed", "linked", "named", "published"}[s]
}

// moves are the stages that may follow each one, besides none after forget.
var moves = [...][]stage{
	stageNone:      {stagePieces, stageWhole, stageLinked, stageNamed, stagePublished},
	stagePieces:    {stageLinked, stageNamed, stagePublished},
	stageWhole:     {stageFlushed, stageLinked, stageNone},
	stageFlushed:   {stageLinked, stageNamed},
	stageLinked:    {stagePublished},
	stageNamed:     {stagePublished},
	stagePublished: {},
}

// move takes the part to another stage.
func (p *part) move(to stage) {
	if slices.Contains(moves[p.stage], to) {
		p.stage = to
		return
	}
	panic(fmt.Sprintf("BUG: a part that is %v becomes %v", p.stage, to))
}

// isPublished reports whether the file is in its place.
func (p *part) isPublished() bool { return p.stage >= stageLinked }

// isPlacing reports whether the file is in its place, and the journal is not told yet.
func (p *part) isPlacing() bool { return p.stage == stageLinked || p.stage == stageNamed }

// isWhole reports whether WriteFile has written the part, and it is not in its place yet.
func (p *part) isWhole() bool { return p.stage == stageWhole || p.stage == stageFlushed }

// use is the call that has a part for itself.
type use uint8

const (
	useNone  use = iota
	useWrite     // WriteFile
	useBatch     // the running Publish
	useReset     // Reset: no more writes
)

// logged is whether the journal has the PART record of a part.
type logged uint8

const (
	loggedNo    logged = iota
	loggedMaybe        // a failed append may be on the disk all the same
	loggedYes
)

// local is whether a file was already in its place when the transfer began.
type local uint8

const (
	localUnknown local = iota
	localFound         // Existing has seen it
	localAdopted       // and Adopt has taken it
	localSkipped       // Adopt has skipped the file: nothing need exist in its place
)

// isAdopted reports whether Adopt has published the file, in this process.
func (l local) isAdopted() bool { return l >= localAdopted }
