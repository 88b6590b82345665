//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// A router forgets TCP connections that are silent for 45 s and drops their packets. An
// idle device detects this, and is reachable at once from then on. That takes minutes, most
// of them waiting: by the name of its file this is among the parallel tests that begin first.
func TestIdleForgetfulRouter(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	router := m.DeviceHome.Router
	router.Sysctl("netfilter/nf_conntrack_tcp_timeout_established", "45")
	router.Sysctl("netfilter/nf_conntrack_tcp_loose", "0")
	router.NFT("table ip forgetful { chain forward { type filter hook forward priority 0; ct state invalid drop; }; }\n")
	m.Device.Join(m.Server.NewKey("--tag", "device").Token)
	m.Laptop.Up(m.Server.NewKey().Token)
	m.Until(3*time.Minute, "the device notices", func() bool { return strings.Contains(m.Device.Err(), "forgot the connection") })
	m.Until(10*time.Second, "it is back", func() bool { return m.Device.Status().Self.Online })
	time.Sleep(70 * time.Second) // longer than the router keeps a silent connection
	fetch(t, m.Laptop, "http://kitchen-pi/", 5*time.Second)
	if n := strings.Count(m.Device.Err(), "forgot the connection"); n != 1 {
		t.Errorf("the device lost its connection %d times", n)
	}
}
