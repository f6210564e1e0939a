package record

// The codes that a sentinel stands for, for the tests of package record_test.
const (
	CodeNotAccepted = codeNotAccepted
	CodeHistory     = codeHistory
)
