// Package slowlink is tests: every lane of a session over every slow link, in virtual time. "go test" runs a part of the grid,
// "make grid" all of it.
package slowlink
