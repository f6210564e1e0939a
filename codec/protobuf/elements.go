package protobuf

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// elements counts the messages within a message, at all depths, before they are decoded.
type elements struct{ n, most int }

// count counts the messages in data, which has those of type d, up to most. If group is not 0, data goes on behind the end of that group, and count
// returns the rest. It stops at what is malformed or too deep, as the decoder does, and returns nil.
func (e *elements) count(data []byte, d protoreflect.MessageDescriptor, group protowire.Number, depth int) (rest []byte) {
	for len(data) > 0 && e.n <= e.most && depth >= 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return nil
		}
		data = data[n:]
		if kind == protowire.EndGroupType {
			if number != group {
				return nil
			}
			return data
		}
		of := messageIn(d, number)
		if of != nil && kind == protowire.StartGroupType {
			e.n++
			data = e.count(data, of, number, depth-1)
			continue
		}
		n = protowire.ConsumeFieldValue(number, kind, data)
		if n < 0 {
			return nil
		}
		if of != nil && kind == protowire.BytesType {
			e.n++
			body, _ := protowire.ConsumeBytes(data) // ConsumeFieldValue has looked at it
			e.count(body, of, 0, depth-1)
		}
		data = data[n:]
	}
	return nil
}

// messageIn returns the type of the messages in a field of d, or nil if the field is unknown, or is none of messages.
func messageIn(d protoreflect.MessageDescriptor, number protowire.Number) protoreflect.MessageDescriptor {
	if f := d.Fields().ByNumber(number); f != nil {
		return f.Message()
	}
	if d.ExtensionRanges().Has(number) {
		if x, err := protoregistry.GlobalTypes.FindExtensionByNumber(d.FullName(), number); err == nil {
			return x.TypeDescriptor().Message()
		}
	}
	return nil
}
