// Package edges gives tests the values at which options and arguments break first: nil, zero, negative, the least and the most of
// their types, and what lies beside the limits that a test names.
//
//	edges.Each(func(o Options, what string) { ... })         // one field after the other, each at every edge
//	o := edges.Some[Options](rng)                             // any of them at once
package edges

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"time"
)

// Given are values of the types that edges cannot make by itself, such as interfaces and structs without exported fields, by type.
// Each and Some use them in the place of others.
type Given map[reflect.Type][]any

// Of returns the Given of values, each under its own type.
func Of(values ...any) Given {
	g := make(Given)
	for _, v := range values {
		g[reflect.TypeOf(v)] = append(g[reflect.TypeOf(v)], v)
	}
	return g
}

// As adds values under the interface type I, nil among them, and returns g.
func As[I any](g Given, values ...I) Given {
	t := reflect.TypeFor[I]()
	g[t] = append(g[t], nil)
	for _, v := range values {
		g[t] = append(g[t], v)
	}
	return g
}

// ints are the edges of integers: those of the types, and of the limits that options have.
var ints = []int64{
	0, 1, -1, 2, 3, 16, 17, 64, 65, 255, 256, 1 << 10, 4<<10 - 1, 4 << 10, 1<<16 - 1, 1 << 16, 1<<20 - 1, 1 << 20, 1<<20 + 1, 1<<24 + 1,
	64 << 20, 64<<20 + 1, 1 << 30, 1<<30 + 1, math.MaxInt32, math.MaxInt32 + 1, math.MaxUint32, math.MaxUint32 + 1, math.MaxInt64,
	math.MinInt64, math.MinInt32, int64(time.Millisecond), int64(time.Second), int64(time.Hour), int64(7*24*time.Hour) + 1,
}

var texts = []string{"", "x", "\x00\n", "\xff", strings.Repeat("n", 255), strings.Repeat("n", 256), strings.Repeat("n", 1<<16)}

// Each calls fn with a T for each edge of each of its exported fields, the others being zero, and says which it is. Fields of embedded
// structs, and of structs within, are fields too.
func Each[T any](given Given, fn func(v T, what string)) {
	t := reflect.TypeFor[T]()
	each(given, t, nil, t.Name(), func(path []int, edge reflect.Value, what string) {
		v := reflect.New(t).Elem()
		v.FieldByIndex(path).Set(edge)
		fn(v.Interface().(T), what)
	})
}

func each(given Given, t reflect.Type, path []int, name string, fn func(path []int, edge reflect.Value, what string)) {
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		here := append(append([]int(nil), path...), i)
		what := name + "." + f.Name
		if f.Type.Kind() == reflect.Struct && given[f.Type] == nil && f.Type.NumField() > 0 {
			each(given, f.Type, here, what, fn)
			continue
		}
		for _, edge := range Values(given, f.Type) {
			fn(here, edge, fmt.Sprintf("%s = %s", what, show(edge)))
		}
	}
}

// Some returns a T of which each exported field is zero in two cases of three, and otherwise at an edge.
func Some[T any](given Given, rng *rand.Rand) T {
	v := reflect.New(reflect.TypeFor[T]()).Elem()
	some(given, v, rng)
	return v.Interface().(T)
}

func some(given Given, v reflect.Value, rng *rand.Rand) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		switch {
		case !f.IsExported():
		case f.Type.Kind() == reflect.Struct && given[f.Type] == nil && f.Type.NumField() > 0:
			some(given, v.Field(i), rng)
		case rng.IntN(3) == 0:
			all := Values(given, f.Type)
			v.Field(i).Set(all[rng.IntN(len(all))])
		}
	}
}

// Values returns the edges of a type: of a pointer nil and one to the zero value; of a func nil and one that returns zeros; of a slice
// nil, empty, and one with each edge of its elements.
func Values(given Given, t reflect.Type) []reflect.Value {
	if given[t] != nil {
		var all []reflect.Value
		for _, v := range given[t] {
			if v == nil {
				all = append(all, reflect.Zero(t))
				continue
			}
			all = append(all, reflect.ValueOf(v))
		}
		return all
	}
	all := []reflect.Value{reflect.Zero(t)}
	add := func(v reflect.Value) { all = append(all, v) }
	switch t.Kind() {
	case reflect.Bool:
		add(reflect.ValueOf(true).Convert(t))
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		for _, n := range ints {
			if v := reflect.New(t).Elem(); !v.OverflowInt(n) {
				v.SetInt(n)
				add(v)
			}
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		for _, n := range append(append([]int64(nil), ints...), -1) { // -1 is the most of all
			if v := reflect.New(t).Elem(); !v.OverflowUint(uint64(n)) {
				v.SetUint(uint64(n))
				add(v)
			}
		}
		add(reflect.ValueOf(uint64(math.MaxUint64)).Convert(t))
	case reflect.Float64:
		for _, x := range []float64{-1, math.Inf(1), math.NaN()} {
			add(reflect.ValueOf(x).Convert(t))
		}
	case reflect.String:
		for _, s := range texts {
			add(reflect.ValueOf(s).Convert(t))
		}
	case reflect.Slice:
		add(reflect.MakeSlice(t, 0, 0))
		for _, edge := range Values(given, t.Elem()) {
			add(reflect.Append(reflect.MakeSlice(t, 0, 1), edge))
		}
		for _, n := range []int{64, 65, 1 << 16} {
			if t.Elem().Kind() == reflect.Uint8 {
				add(reflect.MakeSlice(t, n, n))
			}
		}
	case reflect.Pointer:
		add(reflect.New(t.Elem()))
	case reflect.Func:
		add(reflect.MakeFunc(t, func([]reflect.Value) (out []reflect.Value) {
			for result := range t.Outs() {
				out = append(out, reflect.Zero(result))
			}
			return out
		}))
	}
	return all
}

// show returns a short text of a value.
func show(v reflect.Value) string {
	if v.Kind() == reflect.Func || v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return "nil"
		}
		return "a zero " + v.Type().String()
	}
	if v.Kind() == reflect.Slice { // what is in it may be a stream's own by now
		return fmt.Sprintf("%d of %v", v.Len(), v.Type().Elem())
	}
	s := fmt.Sprintf("%v", v.Interface())
	if len(s) > 40 {
		s = fmt.Sprintf("%.40s... (%d bytes)", s, len(s))
	}
	return s
}
