package diagnostics

import (
	"errors"
	"io"
	"os"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

// stories are played by the tests of the same names, and told in docs/DIAGNOSTICS.md.
var stories = map[string]func(t *testing.T){
	"a peer cannot be reached":               unreachedStory,
	"it is slow":                             slowStory,
	"a session is cut again and again":       cutStory,
	"calls are refused":                      refusedStory,
	"a stream or record stream stands still": stillStory,
}

func TestTheStoriesOfThePage(t *testing.T) {
	page, err := os.ReadFile("../docs/DIAGNOSTICS.md")
	require.NoError(t, err)
	told := regexp.MustCompile(`(?m)^### \.\.\. (.*)\?$`).FindAllStringSubmatch(string(page), -1)
	require.Len(t, told, len(stories))
	for _, m := range told {
		play := stories[m[1]]
		require.NotNil(t, play, m[1])
		t.Run(m[1], func(t *testing.T) { synctest.Test(t, play) })
	}
}

func unreachedStory(t *testing.T) {
	p := newPair(t, &peerlanetest.HostsOptions{Delay: time.Millisecond})
	require.NoError(t, p.server.Start(tag, echo))
	_, err := p.client.Send(t.Context(), p.Bob.ID(), "/chat/2.0.0", nil)
	var carried *peerlane.Explanation
	require.True(t, errors.As(err, &carried))
	why := Explain(t.Context(), p.client, p.Bob.ID().String(), "/chat/2.0.0")
	require.Equal(t, "not-served", string(why.Reason))
	require.Equal(t, why.Reason, carried.Reason)
	require.Equal(t, why.Do, carried.Do)
	require.Contains(t, why.Serves, tag)
	require.Contains(t, why.String(), "do")
	require.Contains(t, why.String(), why.Do)
	require.Equal(t, "/chat/2.0.0", OfClient(p.client).Failed[0].Tag)
}

func slowStory(t *testing.T) {
	p := newPair(t, &peerlanetest.HostsOptions{Delay: 50 * time.Millisecond, Relayed: true,
		RelayLimit: &relay.RelayLimit{Duration: time.Hour, Data: 1 << 20}})
	require.NoError(t, p.server.Start(tag, func(request []byte) ([]byte, error) {
		time.Sleep(time.Second)
		return request, nil
	}))
	ours, _ := p.connect(t)
	began := time.Now()
	_, err := ours.Call(t.Context(), "", nil)
	require.NoError(t, err)
	took := time.Since(began)
	_, err = ours.Ping(t.Context())
	require.NoError(t, err)
	c, _ := p.both(t)
	require.Contains(t, c.Path.Text, "relayed by")
	require.True(t, c.Path.Limited)
	require.InDelta(t, 1<<20, c.Path.RelayLeft, 64<<10)
	require.InDelta(t, time.Second, took-time.Duration(c.RTT), float64(50*time.Millisecond), "the rest is the handler's")
}

func cutStory(t *testing.T) {
	p := newPair(t, &peerlanetest.HostsOptions{Delay: time.Millisecond})
	require.NoError(t, p.server.Start(tag, echo))
	ours, _ := p.connect(t)
	for range 3 { // as by a firewall that forgets connections
		time.Sleep(20 * time.Second)
		p.Vanish(true)
		time.Sleep(30 * time.Second)
		p.Vanish(false)
		p.Cut()
		require.NoError(t, ours.AwaitCarrier(t.Context()))
		_, err := ours.Call(t.Context(), "", nil) // or the server ends it as idle
		require.NoError(t, err)
	}
	c, _ := p.both(t)
	require.Equal(t, uint64(3), c.Resumes)
	require.Len(t, c.Carriers, 4)
	for _, was := range c.Carriers[:3] {
		require.Equal(t, ByNetwork, was.Why.By)
		require.Greater(t, was.Until.Sub(was.Since), 20*time.Second)
		require.Less(t, was.Until.Sub(was.Since), 50*time.Second)
	}
}

func refusedStory(t *testing.T) {
	p := newPair(t, nil)
	server, err := peerlane.NewServer(p.Bob, &peerlane.ServerConfig{AdmitAll: true, MaxConcurrentConns: 5})
	require.NoError(t, err)
	defer func() { _ = server.Stop() }()
	require.NoError(t, server.Start("/small", echo))
	var open []*session.Session
	for range 10 {
		var s *session.Session
		if s, err = p.client.Connect(t.Context(), p.Bob.ID(), "/small"); err != nil {
			break
		}
		open = append(open, s)
	}
	require.ErrorIs(t, err, peerlane.ErrUnavailable)
	settle()
	v := OfServer(server)
	require.NotEmpty(t, Summary(v).Warnings)
	require.Equal(t, "sessions", Summary(v).Warnings[0].Name)
	require.NotEmpty(t, v.Refused)
	last := v.Refused[len(v.Refused)-1]
	require.Equal(t, []string{p.Alice.ID().String(), ByLocal}, []string{last.Peer, last.Why.By})
	for _, s := range open {
		require.NoError(t, s.Close())
	}
}

func stillStory(t *testing.T) {
	p := newPair(t, nil)
	ended := make(chan struct{})
	p.server.SetStream("unread", func(st *session.Stream) {
		<-ended
		_, _ = io.Copy(io.Discard, st)
	})
	record.Handle(p.server, "log", nil, func(s *record.Stream) {
		_, _ = s.ReadRecord(t.Context()) // and no AckRecord
		<-ended
	})
	require.NoError(t, p.server.Listen(tag))
	ours, _ := p.connect(t)
	st, err := ours.OpenStream(t.Context(), "unread", nil)
	require.NoError(t, err)
	require.NoError(t, st.SetWriteDeadline(time.Now().Add(time.Minute)))
	_, err = st.Write(make([]byte, 64<<20))
	require.Error(t, err, "nobody reads")
	log, err := record.Open(t.Context(), ours, "log", nil)
	require.NoError(t, err)
	_, err = log.WriteRecord(t.Context(), []byte("order"))
	require.NoError(t, err)
	c, s := p.both(t)
	named := func(v *SessionSnapshot) StreamSnapshot {
		for _, st := range v.Streams {
			if st.Name == "unread" {
				return st
			}
		}
		return StreamSnapshot{}
	}
	require.Zero(t, named(c).Credit)
	require.Positive(t, named(s).Unread)
	require.Equal(t, uint64(1), c.Records[0].Outstanding)
	require.Equal(t, uint64(1), s.Records[0].PendingApply)
	close(ended)
	_ = log.Close()
	_ = st.Close()
}
