//go:build race

package relayserver

const raceEnabled = true
