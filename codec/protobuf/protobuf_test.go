package protobuf_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/gofeaturespb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/codec/protobuf"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

var _ session.Codec = protobuf.Codec{}

func TestValuesComeBack(t *testing.T) {
	in, err := structpb.NewStruct(map[string]any{"a": 1, "b": []any{"x", nil}})
	require.NoError(t, err)
	b, err := protobuf.Codec{}.Marshal(in)
	require.NoError(t, err)
	var out *structpb.Struct
	require.NoError(t, protobuf.Codec{}.Unmarshal(b, &out))
	require.True(t, proto.Equal(in, out))
	made := new(structpb.Struct)
	require.NoError(t, protobuf.Codec{}.Unmarshal(b, made))
	require.True(t, proto.Equal(in, made))
	require.Equal(t, "protobuf", protobuf.Codec{}.Name())

	b, err = protobuf.Codec{}.Marshal((*structpb.Struct)(nil))
	require.NoError(t, err)
	require.Empty(t, b)
	out = nil
	require.NoError(t, protobuf.Codec{}.Unmarshal(nil, &out))
	require.NotNil(t, out, "an empty message")
}

func TestOnlyMessagesAreTaken(t *testing.T) {
	for _, v := range []any{nil, 1, "x", struct{}{}, new(int), (*structpb.Struct)(nil), (**structpb.Struct)(nil), new(*int)} {
		require.Error(t, protobuf.Codec{}.Unmarshal(nil, v), "%T", v)
	}
	for _, v := range []any{nil, 1, struct{}{}} {
		_, err := protobuf.Codec{}.Marshal(v)
		require.Error(t, err, "%T", v)
	}
	_, err := protobuf.Codec{}.Marshal(&descriptorpb.UninterpretedOption_NamePart{})
	require.ErrorContains(t, err, "required field")
	var part *descriptorpb.UninterpretedOption_NamePart
	require.ErrorContains(t, protobuf.Codec{}.Unmarshal(nil, &part), "required field")
}

// Claim: protobuf.Codec.DiscardUnknown
func TestUnknownFields(t *testing.T) {
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 7)
	var kept, dropped *wrapperspb.StringValue
	require.NoError(t, protobuf.Codec{}.Unmarshal(b, &kept))
	require.NoError(t, protobuf.Codec{DiscardUnknown: true}.Unmarshal(b, &dropped))
	again, err := protobuf.Codec{}.Marshal(kept)
	require.NoError(t, err)
	require.Equal(t, b, again)
	again, err = protobuf.Codec{}.Marshal(dropped)
	require.NoError(t, err)
	require.Empty(t, again)
}

// nested returns a list in a list, n values deep.
func nested(n int) []byte {
	v := structpb.NewNullValue()
	for range n {
		v = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{v}})
	}
	b, err := proto.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// Each limit has its edge where it says.
//
// Claim: protobuf.Codec.MaxBytes, protobuf.Codec.MaxDepth, protobuf.Codec.MaxElements
func TestTheLimits(t *testing.T) {
	text := func(n int) []byte { // 2 bytes for the tag and a length of one byte, 5 with one of four
		head := 2
		if n > 1000 {
			head = 5
		}
		b, err := proto.Marshal(wrapperspb.Bytes(make([]byte, n-head)))
		require.NoError(t, err)
		require.Len(t, b, n)
		return b
	}
	for _, l := range []struct {
		codec protobuf.Codec
		most  int
	}{{protobuf.Codec{MaxBytes: 10}, 10}, {protobuf.Codec{}, 4 << 20}} {
		var out *wrapperspb.BytesValue
		require.NoError(t, l.codec.Unmarshal(text(l.most), &out))
		require.ErrorContains(t, l.codec.Unmarshal(text(l.most+1), &out), "at most")
	}
	for _, l := range []struct {
		codec protobuf.Codec
		lists int // each is two messages
	}{{protobuf.Codec{MaxDepth: 7}, 3}, {protobuf.Codec{}, 49}} {
		var out *structpb.Value
		require.NoError(t, l.codec.Unmarshal(nested(l.lists), &out))
		require.Error(t, l.codec.Unmarshal(nested(l.lists+1), &out))
	}
	flat := func(n int) []byte { return bytes.Repeat([]byte{0x0A, 0x00}, n) }
	for _, l := range []struct {
		codec      protobuf.Codec
		most, over []byte
		into       proto.Message
	}{
		{protobuf.Codec{MaxElements: 5}, flat(5), flat(6), new(structpb.ListValue)},
		{protobuf.Codec{}, flat(1 << 18), flat(1<<18 + 1), new(structpb.ListValue)},
		{protobuf.Codec{MaxElements: 6}, nested(3), nested(4), new(structpb.Value)},
		{protobuf.Codec{MaxElements: 4}, flat(4), flat(5), new(structpb.Struct)}, // entries of a map
		{protobuf.Codec{MaxElements: 1}, flat(100), bytes.Repeat([]byte{0x22, 0x00}, 2), new(descriptorpb.FileDescriptorProto)},
	} {
		require.NoError(t, l.codec.Unmarshal(l.most, l.into))
		require.ErrorContains(t, l.codec.Unmarshal(l.over, l.into), "messages in one")
	}
	_, err := protobuf.Codec{MaxBytes: 4}.Marshal(wrapperspb.String("xxx"))
	require.ErrorContains(t, err, "5 bytes, at most 4")
	for _, c := range []protobuf.Codec{{MaxBytes: -1}, {MaxDepth: -1}, {MaxElements: -1}} {
		require.ErrorContains(t, c.Unmarshal(nil, new(structpb.Value)), "want more than 0")
	}
	_, err = protobuf.Codec{MaxBytes: -1}.Marshal(new(structpb.Value))
	require.Error(t, err)
}

// Groups and extensions are counted too, and what the decoder refuses is refused, wherever the counting stops.
func TestMessagesOfAllKindsAreCounted(t *testing.T) {
	group := descriptorpb.FieldDescriptorProto_TYPE_GROUP
	repeated := descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("groups.proto"), Package: new("t"), Syntax: new("proto2"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name:       new("M"),
			Field:      []*descriptorpb.FieldDescriptorProto{{Name: new("g"), Number: proto.Int32(1), Label: &repeated, Type: &group, TypeName: new(".t.M.G")}},
			NestedType: []*descriptorpb.DescriptorProto{{Name: new("G")}},
		}},
	}, nil)
	require.NoError(t, err)
	groups := func(n int) []byte { return bytes.Repeat([]byte{0x0B, 0x0C}, n) } // begin and end of field 1
	message := func() proto.Message { return dynamicpb.NewMessage(file.Messages().Get(0)) }
	require.NoError(t, protobuf.Codec{MaxElements: 3}.Unmarshal(groups(3), message()))
	require.ErrorContains(t, protobuf.Codec{MaxElements: 3}.Unmarshal(groups(4), message()), "messages in one")

	extended := protowire.AppendBytes(protowire.AppendTag(nil, 1002, protowire.BytesType), nil)
	require.Equal(t, protowire.Number(1002), gofeaturespb.E_Go.TypeDescriptor().Number())
	require.NoError(t, protobuf.Codec{MaxElements: 1}.Unmarshal(extended, new(descriptorpb.FeatureSet)))
	require.ErrorContains(t, protobuf.Codec{MaxElements: 1}.Unmarshal(append(extended, extended...), new(descriptorpb.FeatureSet)), "messages in one")
	unknown := protowire.AppendBytes(protowire.AppendTag(nil, 9999, protowire.BytesType), nil)
	require.NoError(t, protobuf.Codec{MaxElements: 1}.Unmarshal(append(unknown, unknown...), new(descriptorpb.FeatureSet)), "of no known type")

	for _, bad := range [][]byte{{0x80}, {0x0B}, {0x0C}, {0x0B, 0x14}, {0x0A, 0x05, 0x00}} {
		require.Error(t, protobuf.Codec{}.Unmarshal(bad, message()), "%x", bad)
	}
}

func TestTypedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, nil)
		server, err := peerlane.NewServer(h.Bob, nil)
		require.NoError(t, err)
		defer func() { require.NoError(t, server.Stop()) }()
		client, err := peerlane.NewClient(h.Alice, nil)
		require.NoError(t, err)
		defer func() { require.NoError(t, client.Close()) }()
		require.NoError(t, peerlane.HandleTyped(server, "/upper", protobuf.Codec{},
			func(_ context.Context, _ *peerlane.Request, v *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
				return wrapperspb.String(strings.ToUpper(v.GetValue())), nil
			}))
		got, err := peerlane.Call[*wrapperspb.StringValue](t.Context(), client, h.Bob.ID(), "/upper", protobuf.Codec{}, wrapperspb.String("bob"))
		require.NoError(t, err)
		require.Equal(t, "BOB", got.GetValue())
		got, err = peerlane.Call[*wrapperspb.StringValue](t.Context(), client, h.Bob.ID(), "/upper", protobuf.Codec{}, (*wrapperspb.StringValue)(nil))
		require.NoError(t, err)
		require.Empty(t, got.GetValue())
		_, err = client.Send(t.Context(), h.Bob.ID(), "/upper", []byte{0x0A, 0xFF})
		var e *peerlane.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, codes.Undecodable, e.Code)
	})
}

// within counts the values and lists within v.
func within(v *structpb.Value) (n int) {
	switch k := v.GetKind().(type) {
	case *structpb.Value_ListValue:
		n = 1
		for _, e := range k.ListValue.GetValues() {
			n += 1 + within(e)
		}
	case *structpb.Value_StructValue:
		n = 1
		for _, e := range k.StructValue.GetFields() {
			n += 2 + within(e) // the entry too
		}
	}
	return n
}

// FuzzUnmarshal: what is decoded comes back as the same message.
func FuzzUnmarshal(f *testing.F) {
	f.Add(nested(3))
	f.Add(nested(200))
	f.Add(bytes.Repeat([]byte{0x0A, 0x00}, 100))
	f.Add([]byte{0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F})
	f.Add(append(nested(8), nested(9)...))
	c := protobuf.Codec{MaxBytes: 1 << 12, MaxDepth: 8, MaxElements: 20}
	f.Fuzz(func(t *testing.T, b []byte) {
		var out *structpb.Value
		if c.Unmarshal(b, &out) != nil {
			return
		}
		if n := within(out); n > 20 {
			t.Fatalf("%x: %d messages", b, n)
		}
		again, err := protobuf.Codec{}.Marshal(out)
		if err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		var back *structpb.Value
		if err := (protobuf.Codec{}).Unmarshal(again, &back); err != nil {
			t.Fatalf("%x, then %x: %v", b, again, err)
		}
		if third, err := (protobuf.Codec{}).Marshal(back); err != nil || !bytes.Equal(again, third) {
			t.Fatalf("%x, then %x, then %x: %v", b, again, third, err)
		}
	})
}
