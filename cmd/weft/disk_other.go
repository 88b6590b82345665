//go:build !(linux || darwin || freebsd)

package main

// diskFree is the number of bytes that can be written in dir, -1 if unknown.
func diskFree(string) int64 { return -1 }
