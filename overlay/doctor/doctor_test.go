package doctor

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/overlay/netcheck"
	"weft/overlay/report"
	"weft/overlay/status"
)

var now = time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)

// well is a node without problems.
func well() Facts {
	ms, expires := 12.0, now.Add(60*24*time.Hour)
	return Facts{
		Now: now, Version: "1", State: "/var/lib/weft", Free: 1 << 30, MTU: 1500,
		Status: &status.Status{
			State: status.StateRunning, Version: "1", Server: status.ServerStatus{URL: "https://weft.example:8443", Online: true},
			Self: status.SelfStatus{Online: true, Relay: "server", CertificateExpires: &expires},
		},
		Netcheck: &netcheck.Report{
			Links: []netcheck.LinkCheck{{Kind: "server", URL: "https://weft.example:8443", RTTms: &ms}, {Kind: "relay", Name: "server", URL: "https://weft.example:8443", RTTms: &ms, Current: true}},
			STUN:  []netcheck.UDPReply{{Server: "weft.example:3478", Endpoint: "192.0.2.9:4000"}},
			UDP:   netcheck.UDPCheck{Works: true, Endpoint: "192.0.2.9:4000"},
		},
	}
}

func TestWell(t *testing.T) {
	for _, f := range Diagnose(well()) {
		if f.Level != report.OK || f.Cure != "" {
			t.Errorf("%+v", f)
		}
	}
}

// Whoever owns the device is told that it reports on others.
func TestReportsIntroductions(t *testing.T) {
	f := well()
	if found := Diagnose(f); slices.ContainsFunc(found, func(f report.Finding) bool { return f.Code == "introductions" }) {
		t.Errorf("%+v", found)
	}
	f.Status.Self.ReportsIntroductions = true
	found := Diagnose(f)
	i := slices.IndexFunc(found, func(f report.Finding) bool { return f.Code == "introductions" })
	if i < 0 || found[i].Level != report.OK || !strings.Contains(found[i].Message, "the network's owner asked for that") {
		t.Errorf("%+v", found)
	}
}

// A consequence of one problem is not reported as a cause of its own.
func TestNoFalseCauses(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*Facts)
		not   []string // in no message
	}{
		{"the server is down", func(f *Facts) {
			f.Status.Server.Online, f.Status.Self.Online = false, false
			f.Netcheck.UDP = netcheck.UDPCheck{}
			for i := range f.Netcheck.Links {
				f.Netcheck.Links[i].RTTms = nil
			}
		}, []string{"UDP"}},
		{"a join was refused", func(f *Facts) {
			f.Status.State, f.Status.Server.Online, f.Status.Server.LastSeen = status.StateUnjoined, false, &f.Now
			f.Status.Self, f.Netcheck.Links = status.SelfStatus{}, nil
		}, []string{"ago", "did not answer"}},
		{"weft is down", func(f *Facts) {
			f.Status.State, f.Status.Server.Online, f.Status.Self.Online = status.StateDown, false, false
		}, []string{"did not answer", "not connected"}},
		{"another user's daemon", func(f *Facts) {
			f.DaemonErr, f.Status, f.Netcheck = &status.Error{Kind: status.KindDenied, Message: "the daemon belongs to another user"}, nil, nil
		}, []string{"weft run", "no daemon"}},
	} {
		f := well()
		c.spoil(&f)
		for _, x := range Diagnose(f) {
			for _, not := range c.not {
				if x.Level != report.OK && strings.Contains(x.Message+x.Cure, not) {
					t.Errorf("%s: %+v", c.name, x)
				}
			}
		}
	}
	// One of two relays is down, the other does not answer by UDP: UDP is blocked.
	f := well()
	f.Netcheck.UDP = netcheck.UDPCheck{}
	f.Netcheck.Links = append(f.Netcheck.Links, netcheck.LinkCheck{Kind: "relay", Name: "far", URL: "https://far.example"})
	f.Netcheck.STUN = append(f.Netcheck.STUN, netcheck.UDPReply{Server: "far.example:3478"})
	if out := Diagnose(f); !strings.Contains(out[0].Message+out[1].Message, "UDP is blocked") {
		t.Errorf("%+v", out)
	}
}

func TestEachCauseHasItsCure(t *testing.T) {
	late := []status.Health{{Code: "certificate", Message: "late"}}
	offline := func(f *Facts) { f.Status.Server.Online = false }
	for _, c := range []struct {
		name  string
		spoil func(*Facts)
		code  string
		level report.Level
		says  string
		cure  string
	}{
		{"no daemon", func(f *Facts) { f.DaemonErr, f.Status, f.Netcheck = errors.New("no socket"), nil, nil }, "daemon", report.Error, "no socket", "weft run"},
		{"no daemon, installed", func(f *Facts) { f.DaemonErr, f.Status, f.Installed = errors.New("no socket"), nil, true }, "daemon", report.Error, "no daemon", "systemctl"},
		{"another user's daemon", func(f *Facts) {
			f.DaemonErr, f.Status, f.Netcheck = &status.Error{Kind: status.KindDenied, Message: "the daemon at /run/weft/weft.sock belongs to another user", Hint: "let your user in with: sudo usermod -aG weft pi"}, nil, nil
		}, "daemon", report.Error, "belongs to another user", "usermod -aG weft pi"},
		{"another user's daemon, no group", func(f *Facts) {
			f.DaemonErr, f.Status, f.Installed = &status.Error{Kind: status.KindDenied, Message: "no"}, nil, true
		}, "daemon", report.Error, "no", "sudo"},
		{"server down", func(f *Facts) {
			offline(f)
			f.Status.Self.Online = false
			f.Netcheck.UDP = netcheck.UDPCheck{}
			for i := range f.Netcheck.Links {
				f.Netcheck.Links[i].RTTms, f.Netcheck.Links[i].Error = nil, "connection refused"
			}
		}, "server", report.Error, "connection refused", "curl"},
		{"old daemon", func(f *Facts) { f.Status.Version = "0" }, "daemon", report.Warning, "version 0", "restart"},
		{"unjoined", func(f *Facts) { f.Status.State = status.StateUnjoined }, "joined", report.Error, "has not joined", "weft up TOKEN"},
		{"down", func(f *Facts) { f.Status.State = status.StateDown }, "joined", report.Error, "weft down", "weft up"},
		{"disk full", func(f *Facts) { f.Free = 4096 }, "disk", report.Error, "full", "make room"},
		{"disk nearly full", func(f *Facts) { f.Free = 8 << 20 }, "disk", report.Warning, "8 MB", "make room"},
		{"read-only", func(f *Facts) { f.ReadOnly = errors.New("read-only file system") }, "disk", report.Error, "read-only", "writable"},
		{"dns", func(f *Facts) { offline(f); f.Resolve = map[string]error{"weft.example": errors.New("no such host")} }, "dns", report.Error, "no such host", "resolv.conf"},
		{"portal", func(f *Facts) { offline(f); f.Portal = "http://wifi.hotel/" }, "portal", report.Error, "wifi.hotel", "browser"},
		{"another server", func(f *Facts) { offline(f); f.Status.Health = []status.Health{{Code: "server-untrusted"}} }, "server", report.Error, "something else", "openssl"},
		{"refused", func(f *Facts) {
			offline(f)
			f.Netcheck.Links[0].RTTms, f.Netcheck.Links[0].Error = nil, "connection refused"
		}, "server", report.Error, "connection refused", "curl"},
		{"silent since", func(f *Facts) { offline(f); at := now.Add(-3 * time.Hour); f.Status.Server.LastSeen = &at }, "server", report.Error, "3 h ago", "weft status"},
		{"relay", func(f *Facts) { f.Status.Self.Online = false }, "relay", report.Error, "not connected", "TCP"},
		{"other relay", func(f *Facts) {
			f.Netcheck.Links = append(f.Netcheck.Links, netcheck.LinkCheck{Kind: "relay", Name: "far", URL: "https://far.example", Error: "timeout"})
		}, "relay", report.Warning, "far.example", "curl"},
		{"udp", func(f *Facts) { f.Netcheck.UDP = netcheck.UDPCheck{} }, "udp", report.Warning, "blocked", "weft.example:3478"},
		{"mtu", func(f *Facts) { f.MTU = 1200 }, "mtu", report.Warning, "1200", "1280"},
		{"certificate", func(f *Facts) {
			e := now.Add(5 * time.Hour)
			f.Status.Self.CertificateExpires, f.Status.Health = &e, late
		}, "certificate", report.Warning, "5 hours", "server"},
		{"certificate in days", func(f *Facts) {
			e := now.Add(20*24*time.Hour + time.Hour)
			f.Status.Self.CertificateExpires, f.Status.Health = &e, late
		}, "certificate", report.Warning, "20 days", "server"},
		{"expired", func(f *Facts) { e := now.Add(-49 * time.Hour); f.Status.Self.CertificateExpires = &e }, "certificate", report.Error, "2 days", "renewed"},
		{"clock", func(f *Facts) { f.Status.Health = []status.Health{{Code: "clock", Message: "off by 3 h"}} }, "clock", report.Warning, "off by 3 h", "timedatectl"},
		{"::1", func(f *Facts) { f.Status.Health = []status.Health{{Code: "inbound-loopback6:81", Message: "on ::1"}} }, "inbound-loopback6:81", report.Warning, "on ::1", "all,81=[::1]:81"},
		{"::1, of a daemon of today", func(f *Facts) {
			f.Status.Health = []status.Health{{Code: "inbound-loopback6", Message: "on ::1", Of: "81"}}
		}, "inbound-loopback6", report.Warning, "on ::1", "all,81=[::1]:81"},
		{"name", func(f *Facts) { f.Status.Health = []status.Health{{Code: "identity-changed:pi", Message: "changed"}} }, "identity-changed:pi", report.Warning, "changed", "ask the owner"},
		{"port", func(f *Facts) { f.Status.Health = []status.Health{{Code: "proxy-port-taken", Message: "taken"}} }, "proxy-port-taken", report.Warning, "taken", "--proxy"},
		{"version too old", func(f *Facts) {
			offline(f)
			f.Status.Health = []status.Health{{Code: "version", Message: "the device speaks protocol 1, this server 3 to 5: update weft on the device"}}
		}, "version", report.Error, "update weft", "upgrades weft"},
		{"token", func(f *Facts) {
			f.Status.Health = []status.Health{{Code: "join-waiting", Message: "the token has expired"}}
		}, "join-waiting", report.Error, "expired", "weft up"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := well()
			c.spoil(&f)
			out := Diagnose(f)
			if len(out) == 0 || out[0].Level != c.level {
				t.Fatalf("%+v", out)
			}
			for _, x := range out {
				if x.Code == c.code && x.Level == c.level && strings.Contains(x.Message, c.says) && strings.Contains(x.Cure, c.cure) {
					return
				}
			}
			t.Errorf("not found in %+v", out)
		})
	}
}
