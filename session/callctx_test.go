package session

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestACallContextIsAContext(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := &callCtx{deadline: time.Now().Add(time.Second)}
		require.NoError(t, c.Err())
		require.Nil(t, c.Value("x"))
		deadline, ok := c.Deadline()
		require.True(t, ok)
		require.Equal(t, c.deadline, deadline)
		<-c.Done()
		require.Equal(t, context.DeadlineExceeded, c.Err())
		require.Equal(t, c.deadline, time.Now())

		c = &callCtx{deadline: time.Now().Add(time.Second)}
		time.Sleep(2 * time.Second)
		require.Equal(t, context.DeadlineExceeded, c.Err(), "without a timer")
		<-c.Done()

		c = new(callCtx)
		_, ok = c.Deadline()
		require.False(t, ok)
		c.end(context.Canceled)
		c.end(context.DeadlineExceeded)
		require.Equal(t, context.Canceled, c.Err())
		ran := make(chan struct{})
		stop := c.AfterFunc(func() { close(ran) })
		<-ran
		require.False(t, stop())
	})
}

func TestContextsMadeFromACallLeaveNothingBehind(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := new(callCtx)
		for range 1000 {
			ctx, cancel := context.WithTimeout(c, time.Hour)
			require.NoError(t, ctx.Err())
			cancel()
			cancel()
		}
		require.Empty(t, c.after)
		var derived []context.Context
		for range 10 {
			ctx, cancel := context.WithCancel(c)
			defer cancel()
			derived = append(derived, ctx)
		}
		fired := 0
		first := c.AfterFunc(func() { fired++ })
		c.AfterFunc(func() { fired += 10 })
		require.True(t, first())
		require.False(t, first())
		c.end(context.Canceled)
		synctest.Wait()
		for _, ctx := range derived {
			require.Equal(t, context.Canceled, ctx.Err())
		}
		require.Equal(t, 10, fired)
	})
}
