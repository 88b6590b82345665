//go:build race

package netstack

// scale divides the sizes of transfers: the race detector makes hashing, not
// the network, the bulk of the work.
const scale = 16
