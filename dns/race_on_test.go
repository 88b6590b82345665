//go:build race

package dns

// slower is the factor that the race detector may cost.
const slower = 20
