//go:build unix

package localapi

import "syscall"

// noFollow refuses a symbolic link where the lock file should be.
const noFollow = syscall.O_NOFOLLOW
