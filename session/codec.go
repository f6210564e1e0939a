package session

import "encoding/json"

// A Codec turns values into bytes and back, for SendObj and Message.Object. Its name travels with what it made. It must
// be safe for concurrent use.
type Codec interface {
	Name() string
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// JSON is the codec that every Mux has.
var JSON Codec = jsonCodec{}

const jsonName = "json"

type jsonCodec struct{}

func (jsonCodec) Name() string                       { return jsonName }
func (jsonCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }
