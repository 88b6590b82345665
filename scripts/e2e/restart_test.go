//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// Server and relay are one process here. While it is away packets wait; when it returns
// every connection continues, without a reset.
func TestServerRestart(t *testing.T) {
	m := lab.NewMeshNoNodes(t, bin)
	m.DeviceHome.EchoTCP("127.0.0.1:7")
	m.Device.Join(m.Server.Token)
	m.Laptop.Up(m.Server.NewKey().Token)
	f := newFlow(t, m.Laptop, "kitchen-pi:7")
	for _, c := range []struct {
		name string
		end  func()
		away time.Duration
	}{
		{"SIGTERM", func() { m.Server.Stop() }, 500 * time.Millisecond},
		{"kill -9", func() { m.Server.Kill() }, 500 * time.Millisecond},
		{"kill -9, away for 8 s", func() { m.Server.Kill() }, 8 * time.Second},
	} {
		f.echoes(10, 20*time.Second)
		c.end()
		if c.away > time.Second {
			// The node answers from its own data, at once.
			if r := dig(m.Laptop, "kitchen-pi.weft.internal", "A"); !strings.Contains(r.Out, "status: NOERROR") || r.Took > 2*time.Second {
				t.Errorf("%s: a known name while the server is away: %v", c.name, r)
			}
			if r := m.Laptop.Weft("nc", "kitchen-pi", "80"); r.Code == 0 || r.Took > 12*time.Second {
				t.Errorf("%s: a new connection while the relay is away: %v", c.name, r)
			}
			m.Until(10*time.Second, "status says that the server is away", func() bool {
				st := m.Laptop.Status()
				return st.State == "connecting" && !st.Server.Online
			})
		}
		time.Sleep(c.away)
		m.Server.StartNoWait()
		m.Server.Ready()
		t.Logf("%s: next echo %v after the server was ready", c.name, f.echoes(10, 30*time.Second).Round(time.Millisecond))
		fetch(t, m.Laptop, "http://kitchen-pi/", 10*time.Second)
	}
	if gap, err := f.end(); err != nil {
		t.Errorf("the connection died: %v", err)
	} else {
		t.Logf("longest gap: %v", gap.Round(time.Millisecond))
	}
	m.Until(10*time.Second, "both are online again", func() bool {
		a, _ := m.Server.Device("kitchen-pi")
		b, _ := m.Server.Device("laptop")
		return a.Online && b.Online
	})
}

// Relay and nodes restart while iperf3 and scp fill the tunnel.
func TestUnderLoad(t *testing.T) {
	m := lab.NewMesh(t, bin)
	m.DeviceHome.EchoTCP("127.0.0.1:7")
	m.DeviceHome.Start(lab.Nobody, "iperf3", "-s", "-B", "127.0.0.1")
	m.Laptop.Host.Start(m.Laptop.As, "weft", "forward", "--socket", m.Laptop.Sock, "5201:kitchen-pi:5201")
	m.Until(10*time.Second, "iperf3 answers", func() bool {
		return m.Laptop.Host.Run(lab.Nobody, "iperf3", "-c", "127.0.0.1", "-n", "1K").Code == 0
	})

	t.Run("relay", func(t *testing.T) {
		load := make(chan lab.Result, 1)
		go func() {
			load <- m.Laptop.Host.Run(lab.Nobody, "iperf3", "-c", "127.0.0.1", "-t", "8", "-J")
		}()
		time.Sleep(2 * time.Second)
		m.Server.Kill()
		time.Sleep(300 * time.Millisecond)
		m.Server.Start()
		time.Sleep(2 * time.Second)
		m.Server.Stop()
		m.Server.Start()
		r := <-load
		if r.Code != 0 {
			t.Fatalf("iperf3 did not live through two restarts of the relay: %v", r)
		}
		t.Logf("iperf3 over two restarts: %.0f Mbit/s", received(t, r.Out)/1e6)
	})

	t.Run("scp", func(t *testing.T) {
		opts := append(proxyCommand(m.Laptop), sshServer(t, m)...)
		dir := m.Mkdir("scp-load")
		if r := m.Laptop.Host.Run(lab.Nobody, "sh", "-c", "head -c 60000000 /dev/urandom > "+dir+"/up"); r.Code != 0 {
			t.Fatal(r)
		}
		load := make(chan lab.Result, 1)
		go func() {
			// 120 Mbit/s, so that it takes four seconds.
			load <- m.Laptop.Host.Run(lab.Nobody, append(append([]string{"scp", "-q", "-l", "120000"}, opts...), dir+"/up", "root@kitchen-pi:"+dir+"/there")...)
		}()
		time.Sleep(1500 * time.Millisecond)
		m.Server.Kill()
		m.Server.Start()
		r := <-load
		if r.Code != 0 {
			t.Fatalf("scp did not live through a restart of the relay: %v", r)
		}
		if r := m.Laptop.Host.Run(lab.Root, "cmp", dir+"/up", dir+"/there"); r.Code != 0 {
			t.Error(r)
		}
	})

	// A node that restarts loses its connections, and new ones work at once.
	for _, c := range []struct {
		name string
		node *lab.Node
		end  func(*lab.Node)
	}{
		{"device SIGTERM", m.Device, func(n *lab.Node) { n.Stop() }},
		{"device kill -9", m.Device, func(n *lab.Node) { n.Kill() }},
		{"laptop kill -9", m.Laptop, func(n *lab.Node) { n.Kill() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			load := m.Laptop.Host.Start(lab.Nobody, "iperf3", "-c", "127.0.0.1", "-t", "30")
			defer load.Kill()
			time.Sleep(700 * time.Millisecond)
			c.end(c.node)
			c.node.Run()
			c.node.Must("wait", "--timeout", "10s")
			t.Logf("first page after the restart: %v", fetch(t, m.Laptop, "http://kitchen-pi/", 3*time.Second).Round(time.Millisecond))
		})
	}
}

// A laptop reconnects by itself after a suspend.
func TestSleep(t *testing.T) {
	t.Parallel()
	m := lab.NewMesh(t, bin)
	fetch(t, m.Laptop, "http://kitchen-pi/", 5*time.Second)
	// It wakes in another network: the old connection is dead, without a notification.
	m.LaptopHome.Cut()
	time.Sleep(2 * time.Second)
	m.LaptopHome.Router.NFT("flush ruleset\n")
	m.LaptopHome.Router.IP("addr del "+m.LaptopHome.Router.Addr+"/24 dev eth0", "addr add 203.0.113.200/24 dev eth0", "route add default via "+lab.InternetAddr)
	m.LaptopHome.Router.NFT(`table ip home {
	chain nat {
		type nat hook postrouting priority srcnat
		oifname "eth0" masquerade
	}
}
`)
	m.Until(60*time.Second, "the page comes over the new address", func() bool {
		_, err := m.Laptop.Get("http://kitchen-pi/", 3*time.Second)
		return err == nil
	})
}
