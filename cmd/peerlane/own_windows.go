package main

import "io/fs"

// isOwn reports whether a file is this user's, which modes do not tell here.
func isOwn(fs.FileInfo) bool { return true }
