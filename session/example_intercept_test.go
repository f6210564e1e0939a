package session_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/session"
)

// Only calls with a token are handled. The side that calls puts it before each value, and the handler does not see it.
func ExampleMux_Intercept_auth() {
	const token = "secret "
	attach := func(ctx context.Context, x *session.Exchange, next func(context.Context) error) error {
		if !x.Inbound {
			x.Value = append([]byte(token), x.Value...)
		}
		return next(ctx)
	}
	check := func(ctx context.Context, x *session.Exchange, next func(context.Context) error) error {
		if x.Inbound {
			value, ok := bytes.CutPrefix(x.Value, []byte(token))
			if !ok {
				return &session.Error{Code: codes.NotAllowed, Text: "no token"}
			}
			x.Value = value
		}
		return next(ctx)
	}

	bobs := session.NewMux()
	bobs.Intercept(check)
	bobs.SetLink("greet", func(m *session.Message) { _ = m.Reply(append([]byte("hello "), m.Value...)) })
	ours := session.NewMux()
	s := connectFrom(ours, bobs)
	defer func() { _ = s.Close() }()

	_, err := s.SendWait(context.Background(), "greet", []byte("alice"))
	fmt.Println(err)
	ours.Intercept(attach)
	reply, err := s.SendWait(context.Background(), "greet", []byte("alice"))
	fmt.Println(string(reply.Value), err)
	// Output:
	// send "greet" at bob: remote: not allowed: "no token" (rejected)
	// hello alice <nil>
}

// Each call and message is logged with a constant text and attributes.
func ExampleMux_Intercept_logging() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "took" {
			return slog.Attr{} // so that the output is always the same
		}
		return a
	}}))
	log := func(ctx context.Context, x *session.Exchange, next func(context.Context) error) error {
		began := time.Now()
		err := next(ctx)
		attrs := []slog.Attr{
			slog.String("peer", x.Peer), slog.String("link", x.Link), slog.Bool("inbound", x.Inbound), slog.Bool("one_way", x.OneWay),
			slog.Int("bytes", len(x.Value)), slog.Duration("took", time.Since(began)),
		}
		level := slog.LevelInfo
		if err != nil {
			level, attrs = slog.LevelWarn, append(attrs, slog.Any("err", err))
		}
		logger.LogAttrs(ctx, level, "exchange", attrs...)
		return err
	}

	bobs := session.NewMux()
	bobs.SetLink("greet", func(m *session.Message) { _ = m.Reply(nil) })
	ours := session.NewMux()
	ours.Intercept(log)
	s := connectFrom(ours, bobs)
	defer func() { _ = s.Close() }()

	_, _ = s.SendWait(context.Background(), "greet", []byte("alice"))
	_, _ = s.SendWait(context.Background(), "nobody", nil)
	// Output:
	// level=INFO msg=exchange peer=bob link=greet inbound=false one_way=false bytes=5
	// level=WARN msg=exchange peer=bob link=nobody inbound=false one_way=false bytes=0 err="send \"nobody\" at bob: remote: not found: \"no handler for link \\\"nobody\\\"\" (rejected)"
}

// A handler's panic is a failure of the call anyway; this gives the caller a text of its own.
func ExampleMux_Intercept_recover() {
	contain := func(ctx context.Context, _ *session.Exchange, next func(context.Context) error) (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("the handler failed: %v", v)
			}
		}()
		return next(ctx)
	}
	bobs := session.NewMux()
	bobs.Intercept(contain)
	bobs.SetCall(func(*session.Message) ([]byte, error) { panic("no luck") })
	s := connectFrom(session.NewMux(), bobs)
	defer func() { _ = s.Close() }()

	_, err := s.Call(context.Background(), "", nil)
	fmt.Println(err)
	// Output: call at bob: remote: application: "the handler failed: no luck" (delivered)
}
