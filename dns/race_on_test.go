//go:build race

package dns

// slower is how much the race detector may cost.
const slower = 20
