// Package source finds the files that are sent, and reads them: the sending side's disk, as package staging is the receiving side's.
// The transfer protocol comes on top of it and of package manifest; nothing uses it yet.
package source
