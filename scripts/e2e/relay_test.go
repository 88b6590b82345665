//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// startRelay joins a separate relay to a server and waits until it serves.
func startRelay(l *lab.Lab, s *lab.Server, at *lab.Namespace) (relay *lab.Proc, again func() *lab.Proc) {
	l.Helper()
	dir, url := l.Mkdir("relay"), "https://"+at.Addr+":8443"
	run := func(flags ...string) *lab.Proc {
		p := at.Start(lab.Nobody, append([]string{"weft-server", "relay", "--data", dir, "--listen", ":8443", "--stun", ":3478", "--url", url}, flags...)...)
		l.Until(20*time.Second, "the relay serves", func() bool {
			return at.Run(lab.Nobody, "curl", "-sfko", "/dev/null", "https://127.0.0.1:8443/healthz").Code == 0
		})
		return p
	}
	return run("--server", s.URL, "--token", s.NewKey("--relay").Token), func() *lab.Proc { return run() }
}

// relays asks the server for its relays, by name.
func relays(t *testing.T, s *lab.Server) map[string]struct {
	Online  bool
	Clients int
} {
	t.Helper()
	r := s.Admin("relays", "list", "--json")
	var list struct {
		Relays []struct {
			Name    string
			Online  bool
			Clients int
		}
	}
	if err := json.Unmarshal([]byte(r.Out), &list); err != nil || r.Code != 0 {
		t.Fatalf("relays list: %v: %v", err, r)
	}
	m := map[string]struct {
		Online  bool
		Clients int
	}{}
	for _, r := range list.Relays {
		m[r.Name] = struct {
			Online  bool
			Clients int
		}{r.Online, r.Clients}
	}
	return m
}

// With a separate relay on another machine, the coordination server and its built-in
// relay may be away: traffic continues, nodes that know each other reconnect, daemons
// and the relay restart, and everything works when the server returns.
func TestServerAway(t *testing.T) {
	t.Parallel()
	l := lab.New(t, bin)
	host, at := l.Host("server"), l.Host("relay")
	s := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
	rl, startAgain := startRelay(l, s, at)
	m := lab.NewMeshOn(l, s)
	m.DeviceHome.EchoTCP("127.0.0.1:7")
	// A second device, to which the laptop has never connected.
	other := l.Home("den")
	other.Serve("127.0.0.1:80", lab.Page)
	den := l.Node(other.Namespace, "den-pi")
	den.Join(s.NewKey("--tag", "device").Token)
	l.Until(10*time.Second, "the laptop knows den-pi", func() bool {
		return strings.Contains(m.Laptop.Must("status"), "den-pi")
	})
	if out := m.Laptop.Must("netcheck"); strings.Count(out, ":8443") < 2 {
		t.Errorf("netcheck does not list both relays: %s", out)
	}
	f := newFlow(t, m.Laptop, "kitchen-pi:7")
	f.echoes(5, 10*time.Second)
	t.Logf("home relays: %q, %q, %q", m.Device.Status().Self.Relay, m.Laptop.Status().Self.Relay, den.Status().Self.Relay)

	s.Kill()
	t.Logf("the flow goes on after %v", f.echoes(50, 60*time.Second).Round(time.Millisecond))
	start := time.Now()
	l.Until(60*time.Second, "a new introduction without the server", func() bool {
		_, err := m.Laptop.Get("http://den-pi/", 5*time.Second)
		return err == nil
	})
	t.Logf("a first page from den-pi %v after that", time.Since(start).Round(time.Millisecond))
	if gap, err := f.end(); err != nil {
		t.Errorf("the flow died (longest gap %v): %v", gap, err)
	} else {
		t.Logf("longest gap of the flow: %v", gap.Round(time.Millisecond))
	}
	m.Laptop.Kill()
	m.Laptop.Run()
	m.Laptop.Must("wait", "--timeout", "30s")
	fetch(t, m.Laptop, "http://kitchen-pi/", 20*time.Second)
	l.Until(20*time.Second, "status says that the server is away", func() bool {
		st := m.Laptop.Status()
		return !st.Server.Online && len(st.Health) > 0
	})
	// An unknown name must not be answered with "does not exist".
	if r := dig(m.Laptop, "never-seen.weft.internal", "A"); !strings.Contains(r.Out, "status: SERVFAIL") || !strings.Contains(r.Out, "EDE") {
		t.Errorf("an unknown name with the server away: want SERVFAIL and an extended error: %v", r)
	}
	if r := dig(m.Laptop, "kitchen-pi.weft.internal", "A"); !strings.Contains(r.Out, "status: NOERROR") {
		t.Errorf("a known name with the server away: %v", r)
	}
	// The relay can start without the server, too.
	rl.Kill()
	rl = startAgain()
	l.Until(60*time.Second, "the page comes over the relay that was started anew", func() bool {
		_, err := m.Laptop.Get("http://kitchen-pi/", 5*time.Second)
		return err == nil
	})

	s.Start()
	l.Until(60*time.Second, "the laptop sees the server again", func() bool { return m.Laptop.Status().Server.Online })
	l.Until(60*time.Second, "the server sees relay and devices again", func() bool {
		d, ok := s.Device("kitchen-pi")
		list := relays(t, s)
		delete(list, "server")
		for _, r := range list {
			ok = ok && r.Online
		}
		return ok && d.Online && len(list) == 1
	})
	if code := rl.Stop(); code != 0 {
		t.Errorf("weft-server relay: exit code %d on SIGTERM", code)
	}
	l.Until(60*time.Second, "the page comes by the server's relay", func() bool {
		_, err := m.Laptop.Get("http://kitchen-pi/", 5*time.Second)
		return err == nil
	})
}

// A token of the wrong kind is refused with a helpful error, and a removed relay ends.
func TestRelayTokens(t *testing.T) {
	t.Parallel()
	l := lab.New(t, bin)
	host, at := l.Host("server"), l.Host("relay")
	s := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
	relay := func(args ...string) lab.Result {
		return at.Run(lab.Nobody, append([]string{"weft-server", "relay", "--data", l.Mkdir("wrong"), "--url", "https://" + at.Addr + ":8443"}, args...)...)
	}
	for _, c := range []struct {
		name, want string
		code       int
		r          lab.Result
	}{
		{"no token", "keys create --relay", 2, relay()},
		{"a device's token", "weft up TOKEN", 1, relay("--token", s.NewKey().Token)},
	} {
		oneLineAtTheEnd(t, c.r)
		if c.r.Code != c.code || !strings.Contains(c.r.Err, c.want) {
			t.Errorf("%s: %v", c.name, c.r)
		}
	}
	lap := l.Node(l.Home("lap").Namespace, "laptop")
	lap.Run()
	if r := lap.WeftInput(s.NewKey("--relay").Token+"\n", "up", "-"); r.Code == 0 || !strings.Contains(r.Err, "weft-server relay") {
		t.Errorf("a relay's token on a device: %v", r)
	}

	rl, _ := startRelay(l, s, at)
	name := ""
	l.Until(20*time.Second, "the server hears of the relay", func() bool {
		for n, r := range relays(t, s) {
			if n != "server" && r.Online {
				name = n
			}
		}
		return name != ""
	})
	if r := s.Admin("relays", "remove", name); r.Code != 0 {
		t.Errorf("%v", r)
	}
	select {
	case <-rl.Done():
	case <-time.After(20 * time.Second):
		t.Error("a relay that was removed goes on")
	}
	if got := relays(t, s); len(got) != 1 {
		t.Errorf("relays after removal: %v", got)
	}
	if r := s.Admin("relays", "remove", "server"); r.Code != 2 {
		t.Errorf("remove the server's own: %v", r)
	}
}

// oneLineAtTheEnd requires the last line on stderr, after the log, to be the error.
func oneLineAtTheEnd(t *testing.T, r lab.Result) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(r.Err), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "weft-server: ") || len(last) > 400 {
		t.Errorf("want the error in one line: %v", r)
	}
}
