//go:build !(linux || darwin || freebsd)

package main

// diskFree is how many bytes can be written in dir, -1 when that is unknown.
func diskFree(string) int64 { return -1 }
