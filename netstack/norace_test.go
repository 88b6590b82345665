//go:build !race

package netstack

const scale = 1
