package session

// A phase is the progress of one side of a session toward its end (spec 5.9). It only grows.
//
//	open ──Drain──> draining ──idle──┐
//	  └─────────Close────────────────┴──> closing ──all settled──> over
//	                                         └──no progress──────> gave up
type phase uint8

const (
	phaseOpen     phase = iota // takes new work
	phaseDraining              // GOAWAY: no new work; work in flight continues to its end
	phaseClosing               // GOAWAY with codes.Closed: as above, and the session ends once everything is settled
	phaseOver                  // END, or GOAWAY from or to a peer that does not exchange ends: this side's last frame
	phaseGaveUp                // as above, and this side does not wait for what is in flight

	phases = iota
)

func (p phase) String() string {
	return [phases]string{"open", "draining", "closing", "over", "gave up"}[p]
}

// A stage is what the phases of both sides come to.
type stage uint8

const (
	stageOpen     stage = iota // takes new work
	stageDraining              // refuses new work with codes.GoingAway; work in flight continues
	stageClosing               // refuses it with the reason of the end; work in flight is settled
	stageParting               // only waits for the last frame of the peer
	stageParted                // there are no more frames to exchange
)

// stages is the stage at each pair of phases, of a session that exchanges ends with its peer.
var stages = [phases][phases]stage{
	// the peer:    open           draining       closing        over           gave up
	phaseOpen:     {stageOpen, stageDraining, stageDraining, stageDraining, stageDraining},
	phaseDraining: {stageDraining, stageDraining, stageDraining, stageDraining, stageParted},
	phaseClosing:  {stageClosing, stageClosing, stageClosing, stageClosing, stageParted},
	phaseOver:     {stageParting, stageParting, stageParting, stageParted, stageParted},
	phaseGaveUp:   {stageParting, stageParting, stageParting, stageParted, stageParted},
}

// A demand is what the application has asked for at the end of a session. It only grows.
type demand uint8

const (
	demandNone  demand = iota // nothing: if the session ends, the peer has closed it, and this side waits as long as the peer does
	demandDrain               // to drain, after the peer had closed: this side waits for CloseTimeout
	demandClose               // Close: the streams are closed too
	demandAbort               // Abort: nothing is waited for, received data is dropped, and no stream ends in order
)
