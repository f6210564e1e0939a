package source

import "syscall"

// openLarge lets files of 2 GiB and more be opened on 32-bit systems. os.Open sets it, os.Root does not.
const openLarge = syscall.O_LARGEFILE
