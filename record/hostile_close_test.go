package record

import (
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// A CLOSE with a code ends the stream in every state, and is not answered.
func TestCloseOfThePeerEndsTheStreamInEveryState(t *testing.T) {
	end := appendSeq(nil, kindEnd, 1)
	for state, before := range map[string]func(p *rawPeer){
		"fresh":           func(*rawPeer) {},
		"records unread":  func(p *rawPeer) { p.send(rawBatch(1, "a", "b")) },
		"records unacked": func(p *rawPeer) { p.write(1, 2, 3) },
		"END come":        func(p *rawPeer) { p.send(end) },
		"END sent":        func(p *rawPeer) { require.NoError(p.t, p.s.CloseWrite()) },
		"a record failed": func(p *rawPeer) { p.write(1); p.send(failure{seq: 1, retryable: true}.append(nil)) },
		"it has failed one": func(p *rawPeer) {
			p.send(rawBatch(1, "a"))
			p.read(1)
			require.NoError(p.t, p.s.Fail(1, 1, true, ""))
		},
	} {
		for code, want := range map[Code]error{
			codeDone: ErrPeerClosed, codeProtocol: ErrProtocol, codeVersion: ErrVersion, codeHistory: ErrHistory, codeBusy: ErrBusy,
			CodeStore: nil, CodeSuperseded: nil, CodeInternal: nil, 99: nil, CodeApplication + 7: nil,
		} {
			if code == codeDone && state == "END come" {
				continue // in order: see below
			}
			synctest.Test(t, func(t *testing.T) {
				r := new(Registry)
				p := withRaw(t, &Options{Registry: r}, nil)
				before(p)
				p.send(appendClose(nil, code, "so long"))
				var e *Error
				require.ErrorAs(t, p.s.Err(), &e, "%s, %v", state, code)
				require.Equal(t, code != codeDone, e.Remote)
				require.Equal(t, code, e.Code)
				if want != nil {
					require.ErrorIs(t, p.s.Err(), want, "%s, %v", state, code)
				}
				told, _ := p.told()
				require.Equal(t, -1, told, "%s, %v", state, code)
				<-p.s.Done()
				require.Empty(t, r.Snapshots())
				_, err := p.s.ReadRecord(t.Context())
				require.ErrorAs(t, err, &e)
				require.Equal(t, code, e.Code)
				if err = p.s.Barrier(t.Context()); p.s.Snapshot().Outstanding == 0 {
					require.NoError(t, err)
					return
				}
				require.ErrorAs(t, err, &e)
				require.Equal(t, code, e.Code)
				require.Equal(t, "barrier", e.Op)
			})
		}
	}
}

// What has come before an orderly CLOSE can be read and its place kept; nothing more can be written, or is applied there.
// Claim: record.ErrClosed, record.ErrPeerClosed
func TestCloseOfThePeerBehindEndLeavesWhatHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(Registry)
		p := withRaw(t, &Options{Registry: r}, nil)
		p.write(1)
		waiting := make(chan error, 1)
		go func() { waiting <- p.s.Barrier(t.Context()) }()
		synctest.Wait()
		p.send(rawBatch(1, "a", "b"), appendSeq(nil, kindEnd, 3), appendClose(nil, codeDone, ""), []byte("what comes behind is nothing"))
		require.ErrorIs(t, <-waiting, ErrPeerClosed)
		require.NoError(t, p.s.Err())
		require.Len(t, r.Snapshots(), 1, "it is open until Close")
		_, err := p.s.WriteRecord(t.Context(), nil)
		require.ErrorIs(t, err, ErrPeerClosed)
		require.ErrorIs(t, err, syscall.EPIPE)
		require.ErrorIs(t, p.s.Barrier(t.Context()), ErrPeerClosed)
		p.read(2)
		require.NoError(t, p.s.AckRecord(2))
		_, err = p.s.ReadRecord(t.Context())
		require.Equal(t, io.EOF, err)
		require.NoError(t, p.conn.Close())
		require.ErrorIs(t, p.s.Close(), ErrPeerClosed, "the peer has not acknowledged all, and does not say what it was given")
		require.Equal(t, ErrClosed, p.s.Err())
		require.ErrorIs(t, p.s.Err(), net.ErrClosed)
		require.Empty(t, r.Snapshots())
	})
}

// A failure for good is everybody's error, before the CLOSE behind it and after.
func TestFailureForGoodEndsTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := withRaw(t, nil, nil)
		p.write(1, 1, 1)
		waiting := make(chan error, 1)
		go func() { waiting <- p.s.Barrier(t.Context()) }()
		p.send(failure{seq: 2, applied: 1, code: 300, message: "\xffno\n"}.append(nil))
		want := &RecordFailure{FailedSeq: 2, Applied: 1, Code: 300, Message: "\xffno\n"}
		got := <-waiting
		require.Equal(t, want, got)
		require.ErrorAs(t, got, &want)
		require.Contains(t, want.Error(), `record 2 failed with code 300, and the stream is over: "\xffno\n"`)
		require.Equal(t, want, p.s.Resend())
		_, err := p.s.WriteRecord(t.Context(), nil)
		require.Equal(t, want, err)
		require.NoError(t, p.s.BarrierTo(t.Context(), 1))
		require.NoError(t, p.s.Err())
		p.send(appendClose(nil, codeDone, ""))
		p.ended(want)
		require.ErrorIs(t, p.s.Barrier(t.Context()), want)
		code, _ := p.told()
		require.Equal(t, -1, code)
	})
}

// A peer that closes while this side does ends it all the same.
func TestBothSidesMayCloseAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := withRaw(t, &Options{WindowBytes: 32 << 20}, func(h *hello) { h.bytes = 32 << 20 })
		for range 300 {
			p.write(64 << 10) // more than the conn takes
		}
		closed := make(chan error, 1)
		go func() { closed <- p.s.Close() }()
		p.send(rawBatch(1, "for nobody"), appendSeq(nil, kindEnd, 2), appendClose(nil, codeDone, ""))
		start := time.Now()
		require.NoError(t, p.conn.Close())
		<-closed
		require.LessOrEqual(t, time.Since(start), lastWords)
		<-p.s.Done()
	})
}

// deafConn is a conn that takes nothing any more, as one that the peer has closed, and still brings what the peer said before.
type deafConn struct{ *faultnet.Conn }

func (deafConn) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// A Close that meets the peer's is in order, whichever the conn brings first; without that, the loss is told.
func TestCloseIsInOrderWhenThePeerHasClosedToo(t *testing.T) {
	for _, ended := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := withRaw(t, nil, nil)
			synctest.Wait() // the loops have begun
			p.s.conn = deafConn{p.s.conn.(*faultnet.Conn)}
			closed := make(chan error, 1)
			go func() { closed <- p.s.Close() }()
			start := time.Now()
			time.Sleep(lastWords / 2)
			if ended {
				p.send(appendSeq(nil, kindEnd, 1), appendClose(nil, codeDone, ""))
				require.NoError(t, <-closed)
				require.Equal(t, ErrClosed, p.s.Err())
				require.Equal(t, lastWords/2, time.Since(start))
				return
			}
			require.ErrorIs(t, <-closed, io.ErrClosedPipe)
			require.Equal(t, lastWords, time.Since(start))
			require.ErrorIs(t, p.s.Close(), io.ErrClosedPipe)
		})
	}
}

// What this side ends the stream with is what the peer is told, in order and not.
// Claim: record.ErrRange
func TestPeersAreToldWhyThisSideCloses(t *testing.T) {
	for name, test := range map[string]struct {
		end    func(s *Stream) error
		frames []kind
		code   Code
		text   string
	}{
		"Close":          {func(s *Stream) error { return s.Close() }, []kind{kindBatch, kindEnd, kindClose}, codeDone, ""},
		"CloseWithError": {func(s *Stream) error { return s.CloseWithError(300, "enough") }, []kind{kindBatch, kindClose}, 300, "enough"},
		"Fail": {func(s *Stream) error { return s.Fail(1, 300, false, "broken") },
			[]kind{kindBatch, kindFail, kindClose}, codeDone, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := withRaw(t, nil, nil)
			p.send(rawBatch(1, "x"))
			p.read(1)
			p.write(5)
			require.NoError(t, test.end(p.s), name)
			<-p.s.Done()
			var frames []kind
			for {
				h, body, err := p.next()
				if err == io.EOF {
					break
				}
				require.NoError(t, err, name)
				frames = append(frames, h.kind)
				if h.kind == kindClose {
					code, text := consumeClose(body)
					require.Equal(t, test.code, code, name)
					require.Equal(t, test.text, text, name)
				}
			}
			require.Equal(t, test.frames, frames, name)
			require.NoError(t, p.s.Close(), name)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		p := withRaw(t, nil, nil)
		for _, code := range []Code{codeDone, codeProtocol, CodeInternal, CodeApplication - 1} {
			require.ErrorIs(t, p.s.CloseWithError(code, ""), ErrRange, "%v", code)
		}
		require.NoError(t, p.s.Err())
	})
}
