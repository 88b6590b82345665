package osdns

import (
	"os"
	"testing"
)

// fixture is a file of testdata, taken from such a machine.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The mode follows from evidence.
func TestDecide(t *testing.T) {
	const (
		debian   = "hosts: files dns"
		resolve  = "hosts:          files resolve [!UNAVAIL=return] dns"
		myhost   = "hosts: mymachines resolve [!UNAVAIL=return] files myhostname dns"
		fallback = "hosts: files mdns4_minimal [NOTFOUND=return] dns resolve # resolve comes too late"
	)
	for _, c := range []struct {
		name string
		file string // of testdata
		e    evidence
		want Mode
		why  string
	}{
		{"Debian 12 with systemd-resolved", "stub-resolv.conf", evidence{NSSwitch: resolve, Resolved: true}, ModeResolved,
			"programs ask systemd-resolved (resolve in /etc/nsswitch.conf)"},
		{"stub, no nss-resolve", "stub-resolv.conf", evidence{NSSwitch: debian, Resolved: true}, ModeResolved,
			"every nameserver in /etc/resolv.conf is systemd-resolved"},
		{"stub, resolved gone", "stub-resolv.conf", evidence{NSSwitch: resolve}, ModeDirect,
			"/etc/resolv.conf belongs to systemd-resolved, which does not run"},
		{"uplink file with nss-resolve", "uplink-resolv.conf", evidence{NSSwitch: myhost, Resolved: true}, ModeResolved,
			"programs ask systemd-resolved (resolve in /etc/nsswitch.conf)"},
		{"uplink file without", "uplink-resolv.conf", evidence{NSSwitch: fallback, Resolved: true}, ModeDirect,
			"systemd-resolved runs, but programs ask other resolvers: /etc/resolv.conf names 192.168.1.1"},
		{"nobody's file with nss-resolve", "hand-resolv.conf", evidence{NSSwitch: resolve, Resolved: true}, ModeResolved,
			"programs ask systemd-resolved (resolve in /etc/nsswitch.conf)"},
		{"nobody's file, resolved idle", "hand-resolv.conf", evidence{NSSwitch: debian, Resolved: true}, ModeDirect,
			"systemd-resolved runs, but programs ask other resolvers: /etc/resolv.conf names 192.168.1.1"},
		{"NetworkManager with resolved", "stub-resolv.conf", evidence{NSSwitch: resolve, Resolved: true, NM: "1.42.4", NMMode: "systemd-resolved"}, ModeResolved,
			"programs ask systemd-resolved (resolve in /etc/nsswitch.conf)"},
		{"NetworkManager 1.26.0", "stub-resolv.conf", evidence{NSSwitch: debian, Resolved: true, NM: "1.26.0", NMMode: "systemd-resolved"}, ModeNM,
			"NetworkManager 1.26.0 overwrites the settings of systemd-resolved, so it gets them itself"},
		{"NetworkManager 1.26.5-rc1", "stub-resolv.conf", evidence{NSSwitch: debian, Resolved: true, NM: "1.26.5-rc1", NMMode: "systemd-resolved"}, ModeNM,
			"NetworkManager 1.26.5-rc1 overwrites the settings of systemd-resolved, so it gets them itself"},
		{"NetworkManager 1.26.6", "stub-resolv.conf", evidence{NSSwitch: debian, Resolved: true, NM: "1.26.6", NMMode: "systemd-resolved"}, ModeResolved,
			"every nameserver in /etc/resolv.conf is systemd-resolved"},
		{"NetworkManager 1.26.2, which leaves resolved alone", "stub-resolv.conf", evidence{NSSwitch: debian, Resolved: true, NM: "1.26.2", NMMode: "none"}, ModeResolved,
			"every nameserver in /etc/resolv.conf is systemd-resolved"},
		{"NetworkManager writes the file", "nm-resolv.conf", evidence{NSSwitch: debian, NM: "1.42.4", NMMode: "default"}, ModeDirect,
			"/etc/resolv.conf is written by NetworkManager, which accepts no settings for another interface"},
		{"NetworkManager 1.26.1 writes the file", "nm-resolv.conf", evidence{NSSwitch: debian, NM: "1.26.1", NMMode: "default"}, ModeNM,
			"/etc/resolv.conf is written by NetworkManager 1.26.1"},
		{"its file, but NetworkManager is gone", "nm-resolv.conf", evidence{NSSwitch: debian}, ModeDirect,
			"/etc/resolv.conf is written by NetworkManager, which accepts no settings for another interface"},
		{"Debian's resolvconf", "resolvconf-resolv.conf", evidence{NSSwitch: debian, Resolvconf: "Debian resolvconf 1.91+nmu1"}, ModeResolvconf,
			"/etc/resolv.conf is written by resolvconf"},
		{"openresolv", "openresolv-resolv.conf", evidence{NSSwitch: debian, Resolvconf: "openresolv 3.12.0"}, ModeOpenresolv,
			"/etc/resolv.conf is written by openresolv"},
		{"resolvconf before resolved", "resolvconf-stub-resolv.conf", evidence{NSSwitch: debian, Resolved: true, Resolvconf: "Debian resolvconf 1.91"}, ModeResolved,
			"every nameserver in /etc/resolv.conf is systemd-resolved"},
		{"resolvconf is resolvectl", "resolvconf-resolv.conf", evidence{NSSwitch: debian, Resolvconf: "systemd 252 (252.39-1~deb12u1)"}, ModeDirect,
			"/etc/resolv.conf names resolvconf as its author, but there is no resolvconf"},
		{"resolvconf purged", "resolvconf-resolv.conf", evidence{NSSwitch: debian}, ModeDirect,
			"/etc/resolv.conf names resolvconf as its author, but there is no resolvconf"},
		{"container", "docker-resolv.conf", evidence{NSSwitch: debian}, ModeDirect, "no program manages /etc/resolv.conf"},
		{"by hand", "hand-resolv.conf", evidence{}, ModeDirect, "no program manages /etc/resolv.conf"},
		{"none", "", evidence{NSSwitch: debian}, ModeDirect, "there is no /etc/resolv.conf"},
		{"dangling", "", evidence{Link: "../run/nowhere", Dangling: true}, ModeDirect, `/etc/resolv.conf is a link to "../run/nowhere", which does not exist`},
	} {
		if c.file != "" {
			c.e.File = fixture(t, c.file)
		}
		if got, why := decide(c.e); got != c.want || why != c.why {
			t.Errorf("%s: %s because %q, want %s because %q", c.name, got, why, c.want, c.why)
		}
	}
}
