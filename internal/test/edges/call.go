package edges

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
)

// Call calls fn with an edge for each of its arguments, and returns a text of the call. Of what a variadic one takes more of, there are
// up to two.
func Call(given Given, rng *rand.Rand, name string, fn reflect.Value) (call string) {
	t := fn.Type()
	var args []reflect.Value
	var shown []string
	pick := func(t reflect.Type) {
		all := Values(given, t)
		args = append(args, all[rng.IntN(len(all))])
		shown = append(shown, show(args[len(args)-1]))
	}
	for i := range t.NumIn() {
		if t.IsVariadic() && i == t.NumIn()-1 {
			for range rng.IntN(3) {
				pick(t.In(i).Elem())
			}
			break
		}
		pick(t.In(i))
	}
	call = fmt.Sprintf("%s(%s)", name, strings.Join(shown, ", "))
	defer func() {
		if v := recover(); v != nil {
			panic(fmt.Sprintf("%s: %v", call, v)) // says with what
		}
	}()
	fn.Call(args)
	return call
}

// Func calls fn, a function that is called name in what is shown, n times.
func Func(given Given, rng *rand.Rand, n int, name string, fn any) {
	for range n {
		Call(given, rng, name, reflect.ValueOf(fn))
	}
}

// Methods calls exported methods of v, but those that skip names, n times in all, one after the other.
func Methods(given Given, rng *rand.Rand, n int, v any, skip ...string) {
	of := reflect.ValueOf(v)
	var names []string
	for i := range of.NumMethod() {
		if name := of.Type().Method(i).Name; !slices.Contains(skip, name) {
			names = append(names, name)
		}
	}
	for range n {
		name := names[rng.IntN(len(names))]
		Call(given, rng, of.Type().String()+"."+name, of.MethodByName(name))
	}
}
