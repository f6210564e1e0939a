package steady

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// link takes bytes at a rate, per second; 0: at once.
type link struct {
	rate   int
	writes []int
	fails  int // after so many bytes
	total  int
}

func (l *link) Write(b []byte) (int, error) {
	l.writes = append(l.writes, len(b))
	n := len(b)
	var err error
	if l.fails > 0 && l.total+n > l.fails {
		n, err = l.fails-l.total, errors.New("cut")
	}
	if l.rate > 0 {
		time.Sleep(time.Duration(n) * time.Second / time.Duration(l.rate))
	}
	l.total += n
	return n, err
}

func TestWritesAreLargeOnAQuickConn(t *testing.T) {
	var p Pace
	l := new(link)
	for range 10 {
		n, err := p.Write(l, make([]byte, 256<<10))
		require.NoError(t, err)
		require.Equal(t, 256<<10, n)
	}
	require.Len(t, l.writes, 10*256/32)
	require.EqualValues(t, 2560<<10, p.Moved())
}

func TestWritesAreCutUpOnASlowConnAndGrowAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pace
		l := &link{rate: 8 << 10}
		for range 8 {
			_, err := p.Write(l, make([]byte, 64<<10))
			require.NoError(t, err)
		}
		for _, n := range l.writes[1:] {
			require.LessOrEqual(t, n, 7<<10, "a second of it")
		}
		l.rate = 0
		_, err := p.Write(l, make([]byte, 1<<20))
		require.NoError(t, err)
		l.writes = nil
		_, err = p.Write(l, make([]byte, 64<<10))
		require.NoError(t, err)
		require.Len(t, l.writes, 2)
	})
}

func TestAWriteThatFailsSaysHowFarItCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pace
		l := &link{rate: 8 << 10, fails: 100_000}
		_, err := p.Write(l, make([]byte, 64<<10))
		require.NoError(t, err)
		n, err := p.Write(l, make([]byte, 64<<10))
		require.EqualError(t, err, "cut")
		require.Equal(t, 100_000-64<<10, n)
		require.EqualValues(t, 100_000, p.Moved())
	})
	var p Pace
	n, err := p.Write(new(link), nil)
	require.NoError(t, err)
	require.Zero(t, n)
}
