// Package soak keeps two pairs of real hosts busy for long, with every lane, over networks that break on command, and checks that nothing
// grows: heap, goroutines and file descriptors at the end are those of the beginning. docs/NIGHTLY.md says how to run it.
package soak
