package source

import "io/fs"

// inode is false: os.FileInfo has no time of change here.
func (*fileKey) inode(fs.FileInfo) bool { return false }
