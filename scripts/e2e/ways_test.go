//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// TestOnly443: nothing but TCP 443 reaches the server.
func TestOnly443(t *testing.T) {
	t.Parallel()
	l := lab.New(t, bin)
	host := l.Host("server")
	host.OnlyTCP(443)
	m := lab.NewMeshOn(l, l.Serve(host, ":443", "https://"+host.Addr))
	fetch(t, m.Laptop, "http://kitchen-pi/", 5*time.Second)
	if out := m.Laptop.Must("ping", "kitchen-pi", "-c", "1"); !strings.Contains(out, "relay") {
		t.Errorf("ping: %s", out)
	}
}

// nginx runs Debian's nginx on n in front of a server's --console listener.
func nginx(l *lab.Lab, n *lab.Namespace) *lab.Proc {
	l.Helper()
	dir := l.Mkdir("nginx")
	if r := n.Run(lab.Nobody, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
		"-subj", "/CN=weft.example.test", "-keyout", dir+"/key.pem", "-out", dir+"/cert.pem"); r.Code != 0 {
		l.Fatalf("%v", r)
	}
	config := l.WriteFile("nginx.conf", fmt.Sprintf(`daemon off;
pid %[1]s/pid;
error_log stderr warn;
worker_processes 1;
events {}
http {
	access_log %[1]s/access.log;
	client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	map $http_upgrade $connection_upgrade { default upgrade; '' close; }
	server {
		listen 443 ssl;
		ssl_certificate %[1]s/cert.pem;
		ssl_certificate_key %[1]s/key.pem;
		location / {
			proxy_pass http://127.0.0.1:8080;
			proxy_http_version 1.1;
			proxy_set_header Host $host;
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
			proxy_set_header X-Forwarded-Proto $scheme;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection $connection_upgrade;
			proxy_read_timeout 1h;
			proxy_send_timeout 1h;
		}
	}
}
`, dir))
	return n.Start(lab.Nobody, "nginx", "-e", "stderr", "-c", config)
}

// TestBehindNginx: a reverse proxy ends TLS; the nodes' own TLS goes on inside
// of a WebSocket and trusts nothing of the outer one.
func TestBehindNginx(t *testing.T) {
	t.Parallel()
	l := lab.New(t, bin)
	host := l.Host("server")
	host.OnlyTCP(443)
	proxy := nginx(l, host)
	m := lab.NewMeshOn(l, l.Serve(host, "127.0.0.1:8443", "https://"+host.Addr, "--trusted-proxy", "127.0.0.1/32"))
	fetch(t, m.Laptop, "http://kitchen-pi/", 5*time.Second)
	r := curl(m.Laptop, "-k", "-o", "/dev/null", "-w", "%{http_code}", "https://"+host.Addr+"/healthz")
	if r.Out != "200" {
		t.Errorf("the site behind nginx: %v", r)
	}
	// The reverse proxy reloads its configuration or dies: all come back.
	proxy.Kill()
	nginx(l, host)
	l.Until(20*time.Second, "the page comes after nginx was restarted", func() bool {
		body, err := m.Laptop.Get("http://kitchen-pi/", 2*time.Second)
		return err == nil && strings.HasPrefix(body, "kitchen")
	})
}

// TestHTTPProxy: the only way out of the house is an HTTP proxy.
func TestHTTPProxy(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	var tunnels atomic.Int64
	m.DeviceHome.Router.Serve("192.168.1.1:3128", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
			return
		}
		up, err := m.DeviceHome.Router.Dial(r.Context(), "tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer up.Close()
		w.WriteHeader(http.StatusOK)
		down, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer down.Close()
		tunnels.Add(1)
		go func() { io.Copy(up, bufio.NewReader(buf)); up.(*net.TCPConn).CloseWrite() }()
		io.Copy(down, up)
	}))
	m.DeviceHome.Cut() // the router forwards nothing
	m.Device.Env = []string{"HTTPS_PROXY=http://192.168.1.1:3128", "NO_PROXY=localhost"}
	m.Device.Join(m.Server.Token)
	m.Laptop.Up(m.Server.NewKey().Token)
	fetch(t, m.Laptop, "http://kitchen-pi/", 5*time.Second)
	if tunnels.Load() == 0 {
		t.Error("nothing went through the proxy")
	}
}

// TestServerAway: with a relay of its own on another machine, the coordination
// server may go: nodes keep talking, make new introductions from what they
// keep on disk, and restart without it.
func TestServerAway(t *testing.T) {
	t.Parallel()
	l := lab.New(t, bin)
	host, relay := l.Host("server"), l.Host("relay")
	s := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
	token := s.NewKey("--relay").Token
	rl := relay.Start(lab.Nobody, "weft-server", "relay", "--data", l.Mkdir("relay"), "--server", s.URL, "--token", token,
		"--listen", ":8443", "--stun", ":3478", "--url", "https://"+relay.Addr+":8443")
	l.Until(10*time.Second, "the relay listens", func() bool {
		c, err := relay.Dial(t.Context(), "tcp", "127.0.0.1:8443")
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	m := lab.NewMeshOn(l, s)
	m.DeviceHome.EchoTCP("127.0.0.1:7")
	// A second device, which the laptop has never talked to.
	other := l.Home("den")
	other.Serve("127.0.0.1:80", lab.Page)
	den := l.Node(other.Namespace, "den-pi")
	den.Join(s.NewKey("--tag", "device").Token)
	l.Until(10*time.Second, "the laptop knows den-pi", func() bool {
		return strings.Contains(m.Laptop.Must("status"), "den-pi")
	})
	f := newFlow(t, m.Laptop, "kitchen-pi:7")
	f.echoes(5, 5*time.Second)
	t.Logf("home relays: %q, %q, %q", m.Device.Status().Self.Relay, m.Laptop.Status().Self.Relay, den.Status().Self.Relay)

	s.Kill()
	t.Logf("the flow goes on after %v", f.echoes(50, 30*time.Second).Round(time.Millisecond))
	start := time.Now()
	l.Until(30*time.Second, "a new introduction without the server", func() bool {
		_, err := m.Laptop.Get("http://den-pi/", 3*time.Second)
		return err == nil
	})
	t.Logf("a first page from den-pi %v after the server went", time.Since(start).Round(time.Millisecond))
	if gap, err := f.end(); err != nil {
		t.Errorf("the flow died (longest gap %v): %v", gap, err)
	} else {
		t.Logf("longest gap of the flow: %v", gap.Round(time.Millisecond))
	}
	m.Laptop.Kill()
	m.Laptop.Run()
	m.Laptop.Must("wait", "--timeout", "20s")
	fetch(t, m.Laptop, "http://kitchen-pi/", 10*time.Second)
	if st := m.Laptop.Status(); st.Server.Online || len(st.Health) == 0 {
		t.Errorf("status does not say that the server is away: %+v", st)
	}
	// What is not known cannot be denied.
	if r := dig(m.Laptop, "never-seen.weft.internal", "A"); !strings.Contains(r.Out, "status: SERVFAIL") || !strings.Contains(r.Out, "EDE") {
		t.Errorf("an unknown name with the server away: want SERVFAIL and an extended error: %v", r)
	}
	if r := dig(m.Laptop, "kitchen-pi.weft.internal", "A"); !strings.Contains(r.Out, "status: NOERROR") {
		t.Errorf("a known name with the server away: %v", r)
	}

	s.Start()
	l.Until(45*time.Second, "the laptop sees the server again", func() bool { return m.Laptop.Status().Server.Online })
	if code := rl.Stop(); code != 0 {
		t.Errorf("weft-server relay: exit code %d on SIGTERM", code)
	}
	l.Until(30*time.Second, "the page comes by the other relay", func() bool {
		_, err := m.Laptop.Get("http://kitchen-pi/", 3*time.Second)
		return err == nil
	})
}
