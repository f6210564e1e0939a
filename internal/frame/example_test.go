package frame_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

func ExampleAppendHeader() {
	b := frame.AppendHeader(nil, frame.Header{Type: frame.TypePing, ID: 7})
	fmt.Printf("% x\n", b)
	// Output: 00 00 00 20 00 00 00 00 00 00 00 00 07
}

func ExampleConsumeHeader() {
	b := frame.AppendHeader(nil, frame.Header{Length: 5, Type: frame.TypeStreamData, Flags: frame.FlagFin, ID: 3})
	h, n, err := frame.ConsumeHeader(append(b, "bytes"...))
	fmt.Println(h.Type, h.Length, h.ID, n, err)

	_, n, err = frame.ConsumeHeader(b[:4]) // not all there yet: wait for more
	fmt.Println(n, err)
	// Output:
	// STREAM_DATA 5 3 13 <nil>
	// 0 <nil>
}

// A request is one frame when it fits, and goes on in CONTINUE frames when it does not.
func ExampleAppendStart() {
	body := []byte("hello")
	s := frame.Start{Total: len(body), Timeout: time.Second, Link: "echo"}
	h := frame.Header{Type: frame.TypeRequest, ID: 1, Length: frame.StartSize(frame.TypeRequest, 0, &s) + len(body)}
	b := frame.AppendStart(frame.AppendHeader(nil, h), h.Type, h.Flags, s)
	b = append(b, body...)
	fmt.Printf("%x\n", b)
	// Output: 0000120100000000000000000100000005000003e8046563686f68656c6c6f
}

func ExampleStartSize() {
	s := frame.Start{Total: 5, Link: "echo"}
	fmt.Println(frame.StartSize(frame.TypeRequest, 0, &s), frame.StartSize(frame.TypeResponse, 0, &s))
	// Output: 13 4
}

func ExampleConsumeStart() {
	p := frame.AppendStart(nil, frame.TypeMessage, 0, frame.Start{Total: 9, Link: "news"})
	s, body, err := frame.ConsumeStart(append(p, "part one"...), frame.TypeMessage, 0, nil)
	fmt.Printf("%s: %q, %d of %d bytes, %v\n", s.Link, body, len(body), s.Total, err)
	// Output: news: "part one", 8 of 9 bytes, <nil>
}

func ExampleAppendFailure() {
	f := frame.Failure{Code: codes.Unavailable, RetryAfter: 250 * time.Millisecond, Text: "full"}
	b := frame.AppendFailure(nil, f)
	fmt.Printf("%x %d\n", b, frame.FailureSize(f))
	// Output: 00000004000000fa66756c6c 12
}

func ExampleConsumeFailure() {
	b := frame.AppendFailure(nil, frame.Failure{Code: codes.NotFound, Text: `no link "news"`})
	f, err := frame.ConsumeFailure(b)
	fmt.Printf("%v: %s, %v\n", f.Code, f.Text, err)
	// Output: not found: no link "news", <nil>
}

func ExampleCutText() {
	long := strings.Repeat("語", 400) // 1200 bytes
	fmt.Println(len(frame.CutText(long)), frame.CutText("short"))
	// Output: 1023 short
}

func ExampleAppendCredit() {
	fmt.Printf("%x\n", frame.AppendCredit(nil, 65536))
	// Output: 00010000
}

func ExampleConsumeCredit() {
	n, err := frame.ConsumeCredit([]byte{0, 1, 0, 0})
	fmt.Println(n, err)

	_, err = frame.ConsumeCredit([]byte{0, 0, 0, 0})
	fmt.Println(errors.Is(err, frame.ErrMalformed))
	// Output:
	// 65536 <nil>
	// true
}

// The accepting side reads a hello and answers it.
func ExampleReadHello() {
	var carrier bytes.Buffer
	hello := frame.AppendHello(nil, &frame.Hello{
		Kind: frame.KindHello, Version: frame.Version, Role: frame.RoleSession, Limits: &frame.Limits{MaxMessage: 1 << 20},
	})
	if err := frame.WriteHello(&carrier, hello); err != nil {
		fmt.Println(err)
		return
	}

	body, err := frame.ReadHello(&carrier)
	if err != nil {
		fmt.Println(err)
		return
	}
	h, covered, err := frame.ConsumeHello(body)
	fmt.Println(h.Kind, h.Version, h.Limits.MaxMessage, len(covered), err)
	// Output: HELLO 1 1048576 29 <nil>
}

func ExampleWriteHello() {
	var carrier bytes.Buffer
	refuse := frame.AppendHello(nil, &frame.Hello{
		Kind: frame.KindRefuse, Version: frame.Version, Failure: &frame.Failure{Code: codes.NotAllowed, Text: "no"},
	})
	err := frame.WriteHello(&carrier, refuse)
	fmt.Printf("%x %v\n", carrier.Bytes(), err)
	// Output: 000f03010c000a0000000f000000006e6f <nil>
}

func ExampleAppendHello() {
	b := frame.AppendHello(nil, &frame.Hello{Kind: frame.KindAck, Version: frame.Version, Caps: frame.CapZstd})
	fmt.Printf("%x\n", b)
	// Output: 02010400080000000000000001
}

// What stands before the Noise field is what the pre-shared key's handshake is bound to.
func ExampleConsumeHello() {
	b := frame.AppendHello(nil, &frame.Hello{Kind: frame.KindAck, Version: frame.Version, Noise: []byte("proof")})
	h, covered, err := frame.ConsumeHello(b)
	fmt.Printf("%x %s %v\n", covered, h.Noise, err)
	// Output: 0201 proof <nil>
}

func ExampleReader() {
	b := frame.AppendHeader(nil, frame.Header{Type: frame.TypePing, ID: 7})
	b = append(frame.AppendHeader(b, frame.Header{Length: 5, Type: frame.TypeStreamData, ID: 3}), "bytes"...)
	r := frame.NewReader(bytes.NewReader(b), nil)
	for {
		h, payload, err := r.Next()
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%v %d %q\n", h.Type, h.ID, payload)
	}
	// Output:
	// PING 7 ""
	// STREAM_DATA 3 "bytes"
	// EOF
}

// Buffered tells when to flush what is queued: before Next waits.
func ExampleReader_Buffered() {
	b := frame.AppendHeader(nil, frame.Header{Type: frame.TypePing, ID: 1})
	b = frame.AppendHeader(b, frame.Header{Type: frame.TypePing, ID: 2})
	r := frame.NewReader(bytes.NewReader(b), nil)
	for range 2 {
		h, _, err := r.Next()
		fmt.Println(h.ID, err, r.Buffered())
	}
	// Output:
	// 1 <nil> true
	// 2 <nil> false
}

func ExampleNewReader() {
	arrived := 0
	b := frame.AppendHeader(nil, frame.Header{Type: frame.TypePing})
	r := frame.NewReader(bytes.NewReader(b), func(n int) { arrived += n })
	h, _, err := r.Next()
	fmt.Println(h.Type, err, arrived)
	// Output: PING <nil> 13
}

func ExampleCompress() {
	body := bytes.Repeat([]byte("a peer is addressed by its key. "), 1000)
	small, ok := frame.Compress(body)
	fmt.Println(ok, len(small) < len(body)/100)

	_, ok = frame.Compress([]byte("too short to gain"))
	fmt.Println(ok)
	// Output:
	// true true
	// false
}

func ExampleDecompress() {
	body := bytes.Repeat([]byte("abcd"), 1000)
	small, _ := frame.Compress(body)
	raw, err := frame.Decompress(small, len(body))
	fmt.Println(bytes.Equal(raw, body), err)

	_, err = frame.Decompress(small, 64) // the declared size is a promise
	fmt.Println(errors.Is(err, frame.ErrMalformed))
	// Output:
	// true <nil>
	// true
}

func ExampleType_Optional() {
	fmt.Println(frame.TypePing.Optional(), frame.Type(0x81).Optional())
	fmt.Println(frame.TypePing.Known(), frame.Type(0x81).Known(), frame.Type(0x81))
	// Output:
	// false true
	// true false TYPE 0x81
}

func ExampleCode_String() {
	fmt.Println(codes.GoingAway, codes.Code(99))
	// Output: going away code 99
}
