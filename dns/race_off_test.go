//go:build !race

package dns

const slower = 1
