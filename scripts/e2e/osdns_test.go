//go:build e2e

package e2e

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// The operating system's DNS, against the real programs that look after it,
// each in a Debian of its own: behaviours 11, 27, 44 to 49 and 58, threats D11
// and D12. The LAN's resolver is dnsmasq, whose log tells what leaks.

// osdnsLab is a device kitchen-pi, a laptop in a Debian of its own, and the
// resolver of its LAN.
type osdnsLab struct {
	*lab.Lab
	t      *testing.T
	server *lab.Server
	device *lab.Node
	host   *lab.Namespace // the laptop's machine
	sys    *lab.System
	laptop *lab.Node
	lan    *lab.Proc // dnsmasq
	lanDNS string    // where it listens
	pi     string    // kitchen-pi's IPv4 address
	pi6    string
	token  string
	since  int // what of the LAN resolver's log belongs to names that are set; 0 is none
}

func newOSDNSLab(t *testing.T, boot bool, packages ...string) *osdnsLab {
	for _, tool := range []string{"debootstrap", "systemd-nspawn", "dnsmasq", "nsenter", "chattr"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v (scripts/test installs what is needed)", err)
		}
	}
	l := lab.New(t, bin)
	o := &osdnsLab{Lab: l, t: t}
	host := l.Host("server")
	o.server = l.Serve(host, ":8443", "https://"+host.Addr+":8443")
	home := l.Home("pi")
	o.device = l.Node(home.Namespace, "kitchen-pi")
	o.device.Join(o.server.Token)
	self := o.device.Status().Self
	o.pi, o.pi6 = self.IPv4, self.IPv6

	lan := l.Host("lan")
	o.lanDNS = lan.Addr
	// The laptop's server is only known by a name of the LAN's resolver.
	o.lan = lan.Start(lab.Root, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--log-queries", "--log-facility=-",
		"--user=root", "--pid-file=", "--listen-address="+lan.Addr, "--bind-interfaces", "--address=/www.example.test/203.0.113.1", "--local=/#/")
	o.host = l.Host("laptop")
	o.sys = l.DebianRoot(o.host, boot, packages...)
	o.laptop = o.sys.Node("laptop")
	o.token = o.server.NewKey("--reusable").Token
	return o
}

// run starts the laptop's daemon.
func (o *osdnsLab) run(flags ...string) {
	o.t.Helper()
	o.laptop.Run(append([]string{"--tun", "weft0", "-v"}, flags...)...)
}

// join starts it for the first time.
func (o *osdnsLab) join(flags ...string) {
	o.t.Helper()
	o.run(flags...)
	if r := o.laptop.WeftInput(o.token+"\n", "up", "-"); r.Code != 0 {
		o.t.Fatalf("%v\n%s", r, o.laptop.Err())
	}
}

// getent asks as programs do.
func (o *osdnsLab) getent(database, key string) string {
	return o.sys.Run("timeout", "1.5", "getent", database, key).Out
}

func (o *osdnsLab) resolves(name, addr string) bool {
	return strings.Contains(o.getent("ahosts", name), addr)
}

// osStatus is the system's part of weft dns status --json.
type osStatus struct {
	Mode, Reason, Nameserver, Error string
	Search, Match, Applied, Base    []string
	Default                         bool
	Tramples                        int
}

func (o *osdnsLab) status() osStatus {
	o.t.Helper()
	var s struct{ System osStatus }
	out := o.laptop.Must("dns", "status", "--json")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		o.t.Fatalf("%v: %s", err, out)
	}
	return s.System
}

// works waits until names of the overlay and of the LAN resolve in ordinary
// programs.
func (o *osdnsLab) works(limit time.Duration, what string) time.Duration {
	o.t.Helper()
	start := time.Now()
	for {
		missing := ""
		switch {
		case !o.resolves("kitchen-pi", o.pi):
			missing = "kitchen-pi"
		case !o.resolves("kitchen-pi.weft.internal", o.pi6):
			missing = "kitchen-pi.weft.internal"
		case !strings.Contains(o.getent("hosts", o.pi), "kitchen-pi.weft.internal"):
			missing = "the name of " + o.pi
		case !o.resolves("www.example.test", "203.0.113.1"):
			missing = "www.example.test"
		default:
			o.since = len(o.lan.Err()) + 1
			return time.Since(start)
		}
		if time.Since(start) > limit {
			o.t.Fatalf("%s: %s does not resolve within %v\n%s\n%v\n%s", what, missing, limit, o.sys.ReadFile("/etc/resolv.conf"), o.laptop.Weft("dns", "status"), o.laptop.Err())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// mode waits until the daemon has set what it sets in a mode.
func (o *osdnsLab) mode(mode string) {
	o.t.Helper()
	start := time.Now()
	for {
		s := o.status()
		if s.Mode == mode && s.Error == "" && len(s.Applied) > 0 {
			if s.Reason == "" || s.Nameserver != "100.100.100.100" || len(s.Search) == 0 || s.Search[0] != "weft.internal" || !strings.Contains(strings.Join(s.Match, " "), "weft.internal 64.100.in-addr.arpa") {
				o.t.Errorf("status %+v", s)
			}
			return
		}
		if time.Since(start) > 20*time.Second {
			o.t.Fatalf("the mode is not %s: %+v\n%s", mode, s, o.laptop.Err())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// etc is what counts of the system's files.
func (o *osdnsLab) etc() string {
	return o.sys.Must("sh", "-c", `ls -A /etc | grep -E 'resolv|weft'; ls -l /etc/resolv.conf | sed 's/.*resolv.conf/resolv.conf/'; cat /etc/resolv.conf; ls -A /run | grep weft-; ls -A /run/resolvconf/interface /run/resolvconf/interfaces 2>/dev/null; ip -4 route show table local proto 120; true`)
}

// kill ends the daemon as a crash does.
func (o *osdnsLab) kill() {
	o.t.Helper()
	o.leaks()
	syscall.Kill(o.laptop.PID(), syscall.SIGKILL)
	<-o.laptop.Done()
	o.laptop.Kill() // it was us
}

// life is what every mode has to stand: names resolve; what was set goes with
// the daemon, however it ends.
func (o *osdnsLab) life(mode string) {
	t := o.t
	t.Helper()
	if !o.resolves("www.example.test", "203.0.113.1") {
		t.Fatalf("the system does not resolve by itself: %s", o.etc())
	}
	was := o.etc()
	o.join()
	o.mode(mode)
	o.works(20*time.Second, "after the start")
	if s := o.status(); len(s.Base) != 1 || s.Base[0] != o.lanDNS+":53" {
		t.Errorf("base resolvers %v, want %s", s.Base, o.lanDNS)
	}
	// The service address itself, over UDP and TCP.
	for _, flag := range []string{"+notcp", "+tcp"} {
		r := o.host.Run(lab.Nobody, "dig", "+tries=1", "+time=3", "+short", flag, "@100.100.100.100", "kitchen-pi.weft.internal")
		if strings.TrimSpace(r.Out) != o.pi {
			t.Errorf("%v", r)
		}
	}

	// Behaviour 48, D12: killed, the stop hook puts it back without a daemon.
	o.kill()
	if r := o.sys.Run("weft", "dns", "restore"); r.Code != 0 {
		t.Errorf("%v", r)
	}
	if now := o.etc(); now != was {
		t.Errorf("after the stop hook:\n%s\nbefore:\n%s", now, was)
	}
	if !o.resolves("www.example.test", "203.0.113.1") {
		t.Error("the system does not resolve after the stop hook")
	}
	// Killed and started again: all names within 5 s, on an idle machine.
	o.run()
	o.mode(mode)
	o.kill()
	o.run()
	o.t.Logf("%s: after kill -9 and a start names resolve again in %v", mode, o.works(10*time.Second, "after kill -9 and a start").Round(time.Millisecond))

	// The server is away: what nobody knows is a failure, and not asked of
	// others.
	o.server.Stop()
	if out := o.getent("ahosts", "new-pi.weft.internal"); out != "" {
		t.Errorf("new-pi resolves: %s", out)
	}
	o.leaks()
	o.server.Start()

	// down stops it, up starts it.
	o.laptop.Must("down")
	o.Until(10*time.Second, "weft down puts the system back", func() bool {
		return strings.HasPrefix(strings.ReplaceAll(o.etc(), "weft-dns-weft0.lock\n", ""), strings.SplitAfter(was, "nameserver")[0]) && o.status().Mode == "off"
	})
	o.laptop.Must("up")
	o.works(20*time.Second, "after weft up")

	o.end(was)
}

// end stops the daemon orderly and looks at what is left and what has leaked.
func (o *osdnsLab) end(was string) {
	o.t.Helper()
	o.leaks()
	o.laptop.Stop()
	if now := o.etc(); now != was {
		o.t.Errorf("after the end:\n%s\nbefore:\n%s", now, was)
	}
	if !o.resolves("www.example.test", "203.0.113.1") {
		o.t.Error("the system does not resolve after the end")
	}
}

// leaks looks for names of the overlay in what the LAN's resolver was asked
// since names worked (behaviour 58). It comes before whatever takes them back.
func (o *osdnsLab) leaks() {
	o.t.Helper()
	if o.since == 0 {
		return
	}
	// A name that does not exist, and one of the LAN's.
	o.getent("ahosts", "nobody.weft.internal")
	o.getent("hosts", "100.127.255.250")
	o.getent("ahosts", "www.example.test")
	log := o.lan.Err()[o.since-1:]
	o.since = 0
	if !strings.Contains(log, "query[A] www.example.test") {
		o.t.Errorf("the LAN's resolver was not asked at all:\n%s", log)
	}
	for line := range strings.Lines(log) {
		if leaked.MatchString(line) {
			o.t.Errorf("leaked: %s", line)
		}
	}
}

var leaked = regexp.MustCompile(`query\[[^]]*\] (\S*weft\.internal|kitchen-pi\S*|\S*\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.100\.in-addr\.arpa) `)

// Behaviour 47.
func TestOSDNSResolved(t *testing.T) {
	t.Parallel()
	o := newOSDNSLab(t, true, "systemd-resolved", "libnss-resolve")
	o.sys.Must("resolvectl", "dns", "eth0", o.lanDNS)
	o.sys.Must("resolvectl", "domain", "eth0", "lan.example")
	was := o.etc()

	// Everything of the link.
	o.join()
	o.mode("systemd-resolved")
	o.works(20*time.Second, "after the start")
	link := o.sys.Must("resolvectl", "status", "weft0")
	for _, want := range []string{`DNS Servers: 100\.100\.100\.100`, `-DefaultRoute -LLMNR -mDNS -DNSOverTLS DNSSEC=no`, `DNS Domain: weft\.internal ~64\.100\.in-addr\.arpa`} {
		if !regexp.MustCompile(want).MatchString(strings.Join(strings.Fields(link), " ")) {
			t.Errorf("no %s:\n%s", want, link)
		}
	}
	if r := o.host.Run(lab.Nobody, "dig", "+tries=1", "+time=3", "+short", "@127.0.0.53", "kitchen-pi.weft.internal"); strings.TrimSpace(r.Out) != o.pi {
		t.Errorf("%v", r)
	}
	// It forgets, and is told again.
	o.sys.Must("systemctl", "stop", "systemd-resolved")
	o.sys.Must("sh", "-c", "rm -f /run/systemd/resolve/netif/*")
	o.sys.Must("systemctl", "start", "systemd-resolved")
	o.sys.Must("resolvectl", "dns", "eth0", o.lanDNS)
	o.sys.Must("resolvectl", "domain", "eth0", "lan.example")
	t.Logf("after its restart names resolve again in %v", o.works(15*time.Second, "after its restart").Round(time.Millisecond))
	// Another LAN, another resolver: known at once.
	o.sys.Must("resolvectl", "dns", "eth0", o.lanDNS, "203.0.113.99")
	o.Until(10*time.Second, "the new base resolver is known", func() bool { return len(o.status().Base) == 2 })
	o.sys.Must("resolvectl", "dns", "eth0", o.lanDNS)
	o.Until(10*time.Second, "the old base resolver is known", func() bool { return len(o.status().Base) == 1 })
	// Behaviour 17: a name that the system knows not to exist comes to be.
	if o.resolves("bath-pi", o.pi) {
		t.Error("bath-pi resolves")
	}
	if r := o.server.Admin("devices", "rename", "kitchen-pi", "bath-pi"); r.Code != 0 {
		t.Fatalf("%v", r)
	}
	t.Logf("a rename is seen after %v", o.Until(10*time.Second, "bath-pi resolves", func() bool { return o.resolves("bath-pi", o.pi) }).Round(time.Millisecond))
	if r := o.server.Admin("devices", "rename", "bath-pi", "kitchen-pi"); r.Code != 0 {
		t.Fatalf("%v", r)
	}
	// The interface was down.
	o.host.IP("link set weft0 down")
	o.host.IP("link set weft0 up")
	o.works(20*time.Second, "after the interface was down")
	o.leaks()
	o.laptop.Stop()
	if now := o.etc(); now != was {
		t.Errorf("after the end:\n%s\nbefore:\n%s", now, was)
	}

	// The rest as everywhere; the state is that of a joined device.
	o.life("systemd-resolved")
}

func TestOSDNSResolvconf(t *testing.T) {
	t.Parallel()
	o := newOSDNSLab(t, false, "resolvconf", "dnsmasq-base")
	o.sys.Must("sh", "-c", "mkdir -p /run/resolvconf/interface && ln -sf ../run/resolvconf/resolv.conf /etc/resolv.conf && resolvconf --enable-updates && printf 'nameserver "+o.lanDNS+"\nsearch lan.example\n' | resolvconf -a eth0.dhcp")
	o.life("resolvconf")

	// A local dnsmasq stands before everybody in resolvconf's order: names
	// would go to it, so the file is written.
	o.sys.Start("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--user=root", "--pid-file=", "--listen-address=127.0.0.1", "--bind-interfaces", "--server="+o.lanDNS)
	o.sys.Must("sh", "-c", "echo nameserver 127.0.0.1 | resolvconf -a lo.dnsmasq")
	was := o.etc()
	o.run()
	o.mode("direct")
	o.works(20*time.Second, "beside a local dnsmasq")
	if s := o.status(); !strings.Contains(s.Reason, "127.0.0.1") {
		t.Errorf("reason %q", s.Reason)
	}
	o.end(was)
}

func TestOSDNSOpenresolv(t *testing.T) {
	t.Parallel()
	o := newOSDNSLab(t, false, "openresolv")
	o.sys.Must("sh", "-c", "rm -f /etc/resolv.conf && printf 'nameserver "+o.lanDNS+"\nsearch lan.example\n' | resolvconf -a eth0.dhcp")
	o.life("openresolv")
}

// NetworkManager makes /etc/resolv.conf itself, or leaves names to
// systemd-resolved: behaviours 46 and 47 on either, D12.
func TestOSDNSNetworkManager(t *testing.T) {
	t.Parallel()
	o := newOSDNSLab(t, true, "network-manager", "systemd-resolved")
	nm := func(args ...string) string { return o.sys.Must(append([]string{"nmcli", "--wait", "20"}, args...)...) }
	// At first there is no systemd-resolved, and so nothing that calls itself
	// resolvconf.
	o.sys.Must("sh", "-c", "systemctl mask --now systemd-resolved && rm -f /etc/resolv.conf /usr/sbin/resolvconf /sbin/resolvconf && systemctl restart NetworkManager")
	nm("connection", "add", "type", "ethernet", "con-name", "lan", "ifname", "eth0", "ipv6.method", "ignore", "ipv4.method", "manual",
		"ipv4.addresses", o.host.Addr+"/24", "ipv4.gateway", lab.InternetAddr, "ipv4.dns", o.lanDNS, "ipv4.dns-search", "lan.example")
	nm("connection", "up", "lan")
	o.Until(10*time.Second, "NetworkManager writes resolv.conf", func() bool {
		f := o.sys.ReadFile("/etc/resolv.conf")
		return strings.Contains(f, "Generated by NetworkManager") && strings.Contains(f, "nameserver "+o.lanDNS)
	})
	o.life("direct")

	// Another LAN: NetworkManager writes the file anew, as at its restart.
	was := o.etc()
	o.run()
	o.works(20*time.Second, "beside NetworkManager")
	if s := o.status(); !strings.Contains(s.Reason, "NetworkManager") {
		t.Errorf("reason %q", s.Reason)
	}
	nm("connection", "modify", "lan", "ipv4.dns", o.lanDNS+",203.0.113.98")
	nm("device", "reapply", "eth0")
	o.Until(10*time.Second, "the new base resolvers are known", func() bool { s := o.status(); return len(s.Base) == 2 && len(s.Applied) > 0 })
	nm("connection", "modify", "lan", "ipv4.dns", o.lanDNS)
	nm("device", "reapply", "eth0")
	o.Until(10*time.Second, "the old base resolver is known", func() bool { s := o.status(); return len(s.Base) == 1 && len(s.Applied) > 0 })
	o.works(10*time.Second, "after NetworkManager wrote the file")
	o.sys.Must("systemctl", "restart", "NetworkManager")
	o.works(20*time.Second, "after NetworkManager's restart")
	o.end(was)

	// It hands names to systemd-resolved.
	o.sys.Must("sh", "-c", "systemctl unmask systemd-resolved && systemctl start systemd-resolved && ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf && systemctl restart NetworkManager")
	o.Until(20*time.Second, "systemd-resolved knows the LAN's resolver", func() bool {
		return strings.Contains(o.sys.Run("resolvectl", "dns", "eth0").Out, o.lanDNS) && o.resolves("www.example.test", "203.0.113.1")
	})
	o.life("systemd-resolved")
}

// Behaviours 46 and 49, D12.
func TestOSDNSDirect(t *testing.T) {
	t.Parallel()
	o := newOSDNSLab(t, true)
	hand := "search lan.example # the house\nnameserver " + o.lanDNS + " # the router\noptions timeout:2\n"
	o.sys.Must("rm", "-f", "/etc/resolv.conf")
	o.sys.WriteFile("/etc/resolv.conf", hand)
	o.life("direct")

	t.Run("off", func(t *testing.T) {
		was := o.etc()
		o.run("--os-dns=off")
		o.Until(20*time.Second, "the service address answers", func() bool {
			return strings.TrimSpace(o.host.Run(lab.Nobody, "dig", "+tries=1", "+time=1", "+short", "@100.100.100.100", "kitchen-pi.weft.internal").Out) == o.pi
		})
		if r := o.host.Run(lab.Nobody, "dig", "+tries=1", "+time=1", "+short", "@127.0.0.1", "-p", "5335", "kitchen-pi.weft.internal"); strings.TrimSpace(r.Out) != o.pi {
			t.Errorf("%v", r)
		}
		if now := strings.Replace(o.etc(), "local 100.100.100.100 dev weft0 scope host src 100.100.100.100 \n", "", 1); now != was || o.status().Mode != "off" {
			t.Errorf("%s: %s", o.status().Mode, now)
		}
		o.laptop.Stop()
	})
	t.Run("others write it", func(t *testing.T) {
		o.run()
		o.works(20*time.Second, "after the start")
		// Another LAN: a DHCP client replaces the file, or a program writes
		// into it.
		o.sys.Must("sh", "-c", "printf 'nameserver "+o.lanDNS+"\nnameserver 203.0.113.98\n' > /etc/new && mv /etc/new /etc/resolv.conf")
		o.Until(10*time.Second, "the new base resolvers are known", func() bool { s := o.status(); return len(s.Base) == 2 && len(s.Applied) > 0 })
		o.sys.WriteFile("/etc/resolv.conf", hand)
		o.Until(10*time.Second, "the old base resolver is known", func() bool { s := o.status(); return len(s.Base) == 1 && len(s.Applied) > 0 })
		o.works(10*time.Second, "after others wrote it")
		o.leaks()
		// One that insists has won, for a while; it is said, and the tunnel
		// stands.
		o.sys.Must("sh", "-c", "for i in $(seq 16); do echo 'nameserver "+o.lanDNS+"' > /etc/resolv.conf; sleep 0.4; done")
		health := ""
		for _, h := range o.laptop.Status().Health {
			if h.Code == "os-dns" {
				health = h.Message
			}
		}
		if s := o.status(); !strings.Contains(health, "keeps writing") || s.Error == "" || s.Tramples > 100 {
			t.Errorf("health %q, %+v", health, s)
		}
		o.laptop.Must("ping", "kitchen-pi")
		o.laptop.Stop()
		if got := o.sys.ReadFile("/etc/resolv.conf"); got != "nameserver "+o.lanDNS+"\n" {
			t.Errorf("after the end: %q", got)
		}
	})
	// Whatever it was, it comes back.
	for name, make := range map[string]string{
		"a dangling link": "ln -sf ../run/nowhere /etc/resolv.conf",
		"nothing":         "rm -f /etc/resolv.conf",
	} {
		t.Run(name, func(t *testing.T) {
			o.sys.Must("sh", "-c", make)
			look := func() string {
				return o.sys.Must("sh", "-c", "ls -A /etc | grep resolv; readlink /etc/resolv.conf; true")
			}
			was := look()
			o.run()
			o.mode("direct")
			o.Until(20*time.Second, "kitchen-pi resolves", func() bool { return o.resolves("kitchen-pi", o.pi) })
			o.kill()
			o.sys.Must("weft", "dns", "restore")
			if now := look(); now != was {
				t.Errorf("was %q, is %q", was, now)
			}
		})
	}
	t.Run("immutable", func(t *testing.T) {
		o.sys.WriteFile("/etc/resolv.conf", hand)
		file := filepath.Join(o.sys.Dir, "etc/resolv.conf")
		if out, err := exec.Command("chattr", "+i", file).CombinedOutput(); err != nil {
			t.Fatalf("chattr: %v: %s", err, out)
		}
		defer exec.Command("chattr", "-i", file).Run()
		was := o.etc()
		o.run()
		o.Until(20*time.Second, "it is said", func() bool { return strings.Contains(o.status().Error, "chattr -i") })
		o.laptop.Must("ping", "kitchen-pi")
		if r := o.laptop.Weft("dns", "status"); !strings.Contains(r.Out, "problem    /etc/resolv.conf is immutable") {
			t.Errorf("%v", r)
		}
		o.laptop.Stop()
		if now := o.etc(); now != was {
			t.Errorf("after the end:\n%s\nbefore:\n%s", now, was)
		}
	})
	t.Run("mounted", func(t *testing.T) {
		o.sys.WriteFile("/run/outside", hand)
		o.sys.Must("sh", "-c", "touch /etc/resolv.conf && mount --bind /run/outside /etc/resolv.conf")
		was := o.etc()
		o.run()
		o.mode("direct")
		o.works(20*time.Second, "with a file that is mounted")
		o.kill()
		o.sys.Must("weft", "dns", "restore")
		if now := o.etc(); now != was || o.sys.ReadFile("/run/outside") != hand {
			t.Errorf("after the stop hook:\n%s\nbefore:\n%s", now, was)
		}
		o.sys.Must("umount", "/etc/resolv.conf")
	})
	t.Run("service", func(t *testing.T) {
		o.sys.WriteFile("/etc/resolv.conf", hand)
		was := o.etc()
		o.sys.WriteFile("/etc/systemd/system/weft.service", `[Service]
Type=notify
ExecStart=/usr/local/bin/weft run --tun weft0
ExecStopPost=/usr/local/bin/weft dns restore
`)
		o.sys.Must("systemctl", "daemon-reload")
		o.sys.Must("systemctl", "start", "weft")
		o.works(20*time.Second, "as a service")
		o.sys.Must("systemctl", "kill", "--signal=KILL", "weft")
		o.Until(10*time.Second, "the stop hook has run", func() bool { return o.etc() == was })
		if !o.resolves("www.example.test", "203.0.113.1") {
			t.Error("the system does not resolve after the stop hook")
		}
	})
}

// D12: killed at any moment, what is left is a file that is whole, and the
// stop hook puts back what was before. WEFT_CRASH_ROUNDS (default 5) is how
// often.
func TestCrashOSDNS(t *testing.T) {
	t.Parallel()
	rounds, _ := strconv.Atoi(os.Getenv("WEFT_CRASH_ROUNDS"))
	if rounds == 0 {
		rounds = 5
	}
	o := newOSDNSLab(t, false)
	o.sys.Must("rm", "-f", "/etc/resolv.conf")
	hand := "search lan.example\nnameserver " + o.lanDNS + "\n"
	o.sys.WriteFile("/etc/resolv.conf", hand)
	was := o.etc()
	o.join()
	o.mode("direct")
	o.kill()
	for range rounds {
		o.run()
		time.Sleep(rand.N(500 * time.Millisecond))
		o.kill()
		if rand.N(2) == 0 { // the next start does it
			continue
		}
		if r := o.sys.Run("weft", "dns", "restore"); r.Code != 0 || o.etc() != was {
			t.Fatalf("%v\nafter the stop hook:\n%s\nbefore:\n%s", r, o.etc(), was)
		}
	}
	o.run()
	t.Logf("after %d kills names resolve in %v", rounds, o.works(10*time.Second, "after the last kill").Round(time.Millisecond))
	o.end(was)
}
