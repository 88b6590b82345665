package report

import (
	"runtime/debug"
	"time"
)

// BuildTime returns the time of the commit from which this program was built, zero when
// unknown. No valid certificate is older than the program.
func BuildTime() time.Time {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" {
				if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
					return t
				}
			}
		}
	}
	return time.Time{}
}
