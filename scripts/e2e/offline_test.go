//go:build e2e

package e2e

import (
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

var since = regexp.MustCompile(`(?i)last seen|since|ago`)

// offline requires the error about an offline peer within limit, from nc and from the
// proxy.
func offline(t *testing.T, m *lab.Mesh, what string, limit time.Duration) {
	t.Helper()
	r := m.Laptop.Weft("nc", "kitchen-pi", "80")
	t.Logf("%s: error after %v: %s", what, r.Took.Round(time.Millisecond), strings.TrimSpace(r.Err))
	if r.Code != 5 || !since.MatchString(r.Err) {
		t.Errorf("%s: want exit code 5 and since when: %v", what, r)
	}
	if r.Took > limit {
		t.Errorf("%s: the error took %v, want at most %v", what, r.Took, limit)
	}
	oneLine(t, r)
	r = curl(m.Laptop, "--proxy", lab.SOCKSURL, "http://kitchen-pi/")
	if r.Code == 0 || r.Took > limit {
		t.Errorf("%s: curl: want an error within %v: %v", what, limit, r)
	}
}

// rowOf is a peer's line in the laptop's weft status.
func rowOf(m *lab.Mesh, name string) string {
	for line := range strings.Lines(m.Laptop.Must("status")) {
		if strings.HasPrefix(line, name+" ") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// A peer that is off is an error at once. One that vanished is an error after a little
// more than five seconds, since its uplink might only be full.
func TestOffline(t *testing.T) {
	m := lab.NewMesh(t, bin)
	fetch(t, m.Laptop, "http://kitchen-pi/", 5*time.Second)
	m.Device.Stop()
	m.Until(10*time.Second, "status says that it is off", func() bool {
		row := rowOf(m, "kitchen-pi")
		return strings.Contains(row, " offline ") && strings.HasSuffix(row, " ago")
	})
	m.Device.Run()
	m.Device.Must("wait", "--timeout", "10s")
	fetch(t, m.Laptop, "http://kitchen-pi/", 5*time.Second)
	m.Device.Stop()
	offline(t, m, "stopped, tunnel still warm", time.Second)
	offline(t, m, "stopped", time.Second)
	m.Device.Run()
	m.Device.Must("wait", "--timeout", "10s")
	t.Logf("back: page after %v", fetch(t, m.Laptop, "http://kitchen-pi/", 5*time.Second).Round(time.Millisecond))

	m.Device.Kill()
	offline(t, m, "killed", time.Second)
	m.Device.Run()
	m.Device.Must("wait", "--timeout", "10s")
	fetch(t, m.Laptop, "http://kitchen-pi/", 5*time.Second)

	m.DeviceHome.Cut()
	offline(t, m, "vanished a moment ago", 6500*time.Millisecond)
	m.DeviceHome.Mend()
	m.Until(20*time.Second, "the page comes again", func() bool {
		_, err := m.Laptop.Get("http://kitchen-pi/", 3*time.Second)
		return err == nil
	})
	m.Laptop.Stop()
	m.DeviceHome.Cut()
	m.Laptop.Run()
	m.Laptop.Must("wait", "--timeout", "10s")
	offline(t, m, "vanished before the laptop started", 6500*time.Millisecond)
	m.DeviceHome.Mend()
	m.Until(20*time.Second, "the page comes again", func() bool {
		_, err := m.Laptop.Get("http://kitchen-pi/", 3*time.Second)
		return err == nil
	})
	if row := rowOf(m, "kitchen-pi"); !strings.HasSuffix(row, " now") {
		t.Errorf("status right after a page: %q", row)
	}
	m.DeviceHome.Cut()
	time.Sleep(11 * time.Second)
	if row := rowOf(m, "kitchen-pi"); !regexp.MustCompile(`\b1[0-9] s ago$`).MatchString(row) {
		t.Errorf("status of who vanished 11 s ago: %q", row)
	}
	offline(t, m, "vanished 11 s ago", 6500*time.Millisecond)
	if r := m.Laptop.Weft("nc", "kitchen-pi", "80"); !regexp.MustCompile(`\b[12][0-9] s ago`).MatchString(r.Err) {
		t.Errorf("it vanished 11 s ago, and more by now; the message says otherwise: %v", r)
	}
}

// A deleted device is cut off within five seconds; a peer that was offline drops it
// before its first packet.
func TestDelete(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	var hits atomic.Int64
	m.DeviceHome.Serve("127.0.0.1:81", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	m.DeviceHome.EchoTCP("127.0.0.1:7")
	m.Device.Join(m.Server.Token)
	m.Laptop.Up(m.Server.NewKey().Token)
	second := m.Home("lap2")
	lap2 := m.Node(second.Namespace, "second")
	lap2.Up(m.Server.NewKey().Token)
	fetch(t, lap2, "http://kitchen-pi/", 5*time.Second)

	// The laptop is deleted during a connection to a running device.
	f := newFlow(t, m.Laptop, "kitchen-pi:7")
	f.echoes(5, 5*time.Second)
	if r := m.Server.Admin("devices", "delete", "laptop"); r.Code != 0 {
		t.Fatal(r)
	}
	t.Logf("the connection of a deleted device ended after %v", f.quiet(5*time.Second).Round(time.Millisecond))
	f.end()
	if body, err := m.Laptop.Get("http://kitchen-pi/", 3*time.Second); err == nil {
		t.Errorf("a deleted laptop still gets: %s", body)
	}
	m.Laptop.Stop()
	m.Laptop.RunNoWait()
	time.Sleep(time.Second)
	if body, err := m.Laptop.Get("http://kitchen-pi/", 2*time.Second); err == nil {
		t.Errorf("a deleted laptop gets after a restart: %s", body)
	}

	// Every verb tells its user.
	m.Until(10*time.Second, "the laptop receives it", func() bool {
		return strings.Contains(m.Laptop.Weft("status").Out, "was removed from this network; to join again, run: weft logout, then weft up TOKEN")
	})
	for _, verb := range [][]string{{"up"}, {"wait", "--timeout", "60s"}} {
		if r := m.Laptop.Weft(verb...); r.Code != 1 || !strings.Contains(r.Err, "removed from the network") || r.Took > 5*time.Second {
			t.Errorf("a deleted laptop: %v", r)
		}
	}
	if r := m.Laptop.Weft("doctor"); r.Code != 1 || !strings.HasPrefix(r.Out, "FAIL  revoked: ") || strings.Count(r.Out, "FAIL") != 1 || strings.Contains(r.Out, "certificate") {
		t.Errorf("a deleted laptop: %v", r)
	}

	// The device is offline while the other laptop, which it knows, is deleted.
	m.Device.Kill()
	stop := make(chan struct{})
	done := make(chan struct{})
	if r := m.Server.Admin("devices", "delete", "second"); r.Code != 0 {
		t.Fatal(r)
	}
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				lap2.Get("http://kitchen-pi:81/", 500*time.Millisecond)
			}
		}
	}()
	m.Device.Run()
	m.Device.Must("wait", "--timeout", "10s")
	time.Sleep(3 * time.Second)
	close(stop)
	<-done
	if n := hits.Load(); n != 0 {
		t.Errorf("a device deleted while its peer was offline got %d requests through", n)
	}

	// The reverse: the node was offline itself, with the peer in its cache.
	third := m.Home("lap3")
	lap3 := m.Node(third.Namespace, "third")
	lap3.Up(m.Server.NewKey().Token)
	fetch(t, lap3, "http://kitchen-pi/", 5*time.Second)
	lap3.Stop()
	if r := m.Server.Admin("devices", "delete", "kitchen-pi"); r.Code != 0 {
		t.Fatal(r)
	}
	lap3.Run()
	lap3.Must("wait", "--timeout", "10s")
	if body, err := lap3.Get("http://kitchen-pi/", 3*time.Second); err == nil {
		t.Errorf("a laptop that was offline still reaches the deleted device: %s", body)
	}
	for _, d := range m.Server.Devices() {
		if d.Name != "third" {
			t.Errorf("deleted, and still listed: %+v", d)
		}
	}
}
