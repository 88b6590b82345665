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

// Only TCP 443 reaches the server.
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

// The first of two nameservers does not answer, so each look-up takes 5 s. A device
// still joins, and after a restart it knows the server's address.
func TestSilentNameserver(t *testing.T) {
	t.Parallel()
	l := lab.New(t, bin)
	m := lab.MeshOf(l, l.Serve(l.Internet, ":8443", "https://www.example.test:8443"))
	home := m.DeviceHome
	home.Router.IP("addr add 192.168.1.53/24 dev lan")
	home.Router.NFT("table ip silent { chain in { type filter hook input priority 0; ip daddr 192.168.1.53 drop; }; }\n")
	home.Resolver("192.168.1.53", "192.168.1.1")
	m.Device.Join(m.Server.NewKey().Token)
	m.Laptop.Up(m.Server.NewKey().Token)
	fetch(t, m.Laptop, "http://kitchen-pi/", 10*time.Second)
	m.Device.Stop()
	home.Resolver("192.168.1.53")
	m.Device.Run()
	m.Device.Must("wait", "--timeout", "30s")
	fetch(t, m.Laptop, "http://kitchen-pi/", 10*time.Second)
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
master_process off;
pid %[1]s/pid;
error_log stderr warn;
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

// A reverse proxy ends TLS; the nodes' own TLS runs inside a WebSocket and does not
// trust the outer one.
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
	// The reverse proxy reloads its configuration or dies: all nodes reconnect.
	proxy.Kill()
	nginx(l, host)
	l.Until(20*time.Second, "the page comes after nginx was restarted", func() bool {
		body, err := m.Laptop.Get("http://kitchen-pi/", 2*time.Second)
		return err == nil && strings.HasPrefix(body, "kitchen")
	})
}

// An HTTP proxy is the only way out of the house.
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
