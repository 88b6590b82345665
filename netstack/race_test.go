//go:build race

package netstack

// scale divides the sizes of transfers: under the race detector hashing, not the
// network, would take most of the time.
const scale = 16
