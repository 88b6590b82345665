package dns

import (
	"net/netip"
	"testing"
	"time"
)

// A program on a machine with a kernel interface asks from the service address. It is
// answered before there is a configuration, and without a rate limit.
func TestThisMachineAsks(t *testing.T) {
	st := &state{}
	var l limiter
	for ip, want := range map[string]bool{"127.0.0.1": true, "::1": true, "100.100.100.100": true, "127.64.0.7": false, "100.64.0.7": false, "192.168.1.7": false} {
		a := netip.MustParseAddr(ip)
		if got := st.mayAsk(a); got != want {
			t.Errorf("%s may ask before there is a configuration: %v", ip, got)
		}
		now := time.Now()
		allowed := true
		for range 2 * ratePerSecond {
			allowed = l.allow(a, now)
		}
		if here := thisMachine(a); allowed != here {
			t.Errorf("%s is let in without a limit: %v", ip, allowed)
		}
	}
}
