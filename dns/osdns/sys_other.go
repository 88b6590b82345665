//go:build !linux

package osdns

const nonblock = 0

func isLoop(error) bool { return false }

func copyLabel(string, string) {}
