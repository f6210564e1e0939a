package boltstore

import "errors"

// Sentinels for errors.Is.
var (
	ErrApplied = errors.New("the record is applied already")   // by a transaction before: roll back, and acknowledge it
	ErrDamaged = errors.New("what is kept is damaged")         // see the text
	ErrFormat  = errors.New("kept in a format of another age") // of a later version of this package
	ErrHeld    = errors.New("a stream has the store")          // close it first
)
