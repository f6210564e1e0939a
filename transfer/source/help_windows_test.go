package source

import "testing"

func needsUnix(t testing.TB) {
	t.Skip("an open file is neither removed nor replaced here")
}
