package transfer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// meterAt is a meter of a transfer of 1000 bytes, and a clock.
type meterAt struct {
	*meter
	now time.Time
}

func newMeterAt() *meterAt {
	m := &meterAt{newMeter(), time.Unix(1_700_000_000, 0)}
	m.bytes.Store(1000)
	m.tick(m.now)
	return m
}

// after lets some time pass, in which bytes arrive, and returns the progress.
func (m *meterAt) after(d time.Duration, bytes int64) Progress {
	m.now = m.now.Add(d)
	m.verified.Add(bytes)
	return m.progress(m.now)
}

func TestTheRateIsThatOfTheLastSecond(t *testing.T) {
	m := newMeterAt()
	require.Zero(t, m.progress(m.now).Rate, "one sample is none")
	require.InDelta(t, 100, m.after(time.Second, 100).Rate, 1)
	require.InDelta(t, 50, m.after(time.Second, 50).Rate, 1)
	p := m.after(time.Second, 0)
	require.Zero(t, p.Rate)
	require.InDelta(t, 50, p.RateSlow, 1, "over all three seconds")
	for range 20 {
		p = m.after(time.Second, 0)
	}
	require.Zero(t, p.RateSlow, "what came longer ago than ten seconds does not count")
}

func TestTheTimeLeftIsWhatTheSlowRateSays(t *testing.T) {
	m := newMeterAt()
	require.Zero(t, m.progress(m.now).ETA, "nothing is known")
	p := m.after(2*time.Second, 200)
	require.InDelta(t, 8, p.ETA.Seconds(), 0.1)
	m.verified.Store(1000)
	require.Zero(t, m.progress(m.now).ETA, "nothing is left")
}

// What was there already does not count as received, or the rate of a resumed transfer would be that of its disk.
func TestWhatWasThereAlreadyIsNoRate(t *testing.T) {
	m := newMeterAt()
	m.verified.Add(900)
	m.resumed.Add(900)
	p := m.after(time.Second, 10)
	require.InDelta(t, 10, p.Rate, 0.1)
	require.Equal(t, int64(910), p.Verified)
	require.Equal(t, int64(900), p.Resumed)
}

func TestARateIsNeverNegative(t *testing.T) {
	m := newMeterAt()
	m.after(time.Second, 500)
	m.forget(400, 0)
	p := m.after(time.Second, 0)
	require.Zero(t, p.Rate)
	require.Equal(t, int64(100), p.Verified)
}

func TestForgottenDataIsNeitherVerifiedNorDurable(t *testing.T) {
	m := newMeterAt()
	m.verified.Store(500)
	m.durable.Store(450)
	m.resumed.Store(300)
	m.forget(100, 40)
	require.Equal(t, int64(400), m.verified.Load())
	require.Equal(t, int64(400), m.durable.Load(), "no more than what is verified")
	require.Equal(t, int64(260), m.resumed.Load())
	m.durable.Store(10)
	m.forget(100, 0)
	require.Equal(t, int64(10), m.durable.Load())
}

func TestSamplesAreFewHoweverOftenProgressIsAsked(t *testing.T) {
	m := newMeterAt()
	for range 100_000 {
		m.after(time.Millisecond, 1)
	}
	require.LessOrEqual(t, len(m.samples), int(slowSpan/sampleSpan)+2)
	require.InDelta(t, 1000, m.progress(m.now).RateSlow, 20)
}

func TestAPhaseThatIsOverStays(t *testing.T) {
	for _, last := range []Phase{PhaseDone, PhaseFailed} {
		m := newMeterAt()
		require.Equal(t, PhaseStart, m.progress(m.now).Phase)
		m.setPhase(PhaseData)
		m.setPhase(last)
		m.setPhase(PhaseList)
		require.Equal(t, last, m.progress(m.now).Phase)
		require.True(t, m.setPaused(true))
		require.Equal(t, last, m.progress(m.now).Phase, "and is not paused")
	}
}

func TestAPausedTransferSaysSo(t *testing.T) {
	m := newMeterAt()
	m.setPhase(PhaseData)
	require.True(t, m.setPaused(true))
	require.False(t, m.setPaused(true), "it is known")
	require.True(t, m.isPaused())
	require.Equal(t, PhasePaused, m.progress(m.now).Phase)
	require.True(t, m.setPaused(false))
	require.Equal(t, PhaseData, m.progress(m.now).Phase)
}

func TestThePeerThatIsFoundEndsTheWait(t *testing.T) {
	m := newMeterAt()
	m.found()
	require.Equal(t, PhaseStart, m.progress(m.now).Phase, "it did not wait")
	m.setPhase(PhaseWaiting)
	m.found()
	require.Equal(t, PhaseData, m.progress(m.now).Phase)
}
