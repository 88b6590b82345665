//go:build race

package coord

// raceEnabled says that the memory of this process is mostly the race detector's.
const raceEnabled = true
