// Package doctor says what is wrong with a node, why, and which command fixes it. It is
// pure: Diagnose turns collected facts into findings, so that tests can cover every
// case.
//
// Not for embedders: overlay.Node.Status tells programs what is wrong.
package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"weft/overlay/age"
	"weft/overlay/netcheck"
	"weft/overlay/report"
	"weft/overlay/status"
)

// Facts are the input of Diagnose. Unknown ones are zero.
type Facts struct {
	Now       time.Time
	Version   string // of the command line
	DaemonErr error  // why the daemon does not answer, or nil
	Installed bool   // whether it is installed as a system service

	Status   *status.Status
	Netcheck *netcheck.Report

	// State is the state directory; Free is the free space of its file system in bytes,
	// -1 if unknown.
	State string
	Free  int64
	// ReadOnly is the error of writing there, or nil.
	ReadOnly error

	// Resolve has the result of looking up each host of the server side.
	Resolve map[string]error
	// Portal is where a plain HTTP request to the server's host was redirected, "" if
	// nowhere.
	Portal string
	// MTU is the smallest one of the interfaces with a default route, 0 if unknown.
	MTU int
}

const (
	freeError   = 1 << 20
	freeWarning = 16 << 20
	smallestMTU = 1280 // RFC 8200 section 5, and what weft's tunnels start with
)

// Diagnose returns a finding for every check, the worst first.
func Diagnose(f Facts) report.Findings {
	var out report.Findings
	add := out.Add
	checkDaemon(f, add)
	checkDisk(f, add)
	// For a device that was removed from its network nothing else matters.
	if f.Status == nil || !has(f, status.CodeRevoked) {
		checkServer(f, add)
		checkRelays(f, add)
		checkUDP(f, add)
		checkIdentity(f, add)
	}
	if f.Status != nil && f.Status.Self.ReportsIntroductions {
		add("introductions", report.OK, "", "this device reports to its server who introduces themselves to it, and when: the network's owner asked for that")
	}
	checkHealth(f, add)
	out.Sort()
	return out
}

type adder func(code string, level report.Level, cure, format string, args ...any)

func checkDaemon(f Facts, add adder) {
	start := "weft run"
	if f.Installed {
		start = "systemctl restart weft; journalctl -u weft -e"
	}
	switch {
	case status.KindOf(f.DaemonErr) == status.KindDenied:
		// The daemon runs, but this user may not use its socket.
		var e *status.Error
		errors.As(f.DaemonErr, &e)
		add("daemon", report.Error, cmp.Or(e.Hint, "run this as that user, or as root with sudo"), "%s", e.Message)
		return
	case f.DaemonErr != nil:
		var e *status.Error
		if errors.As(f.DaemonErr, &e) { // its hint is the fix
			add("daemon", report.Error, start, "%s", e.Message)
			return
		}
		add("daemon", report.Error, start, "no daemon answers: %v", f.DaemonErr)
		return
	case f.Status == nil:
		return
	case f.Status.Version != f.Version:
		add("daemon", report.Warning, "restart the daemon: "+start, "the daemon runs version %s, this program is %s", f.Status.Version, f.Version)
	default:
		add("daemon", report.OK, "", "the daemon answers, version %s", f.Version)
	}
	switch f.Status.State {
	case status.StateUnjoined:
		add("joined", report.Error, "weft up TOKEN, with a token from the console or from: weft-server keys create", "this device has not joined a network")
	case status.StatePending:
		add("joined", report.Error, "ask the network's owner to let it in", "this device waits for approval")
	case status.StateDown:
		add("joined", report.Error, "weft up", "weft was stopped with: weft down")
	}
}

func checkDisk(f Facts, add adder) {
	switch {
	case f.ReadOnly != nil:
		add("disk", report.Error, "make it writable, or choose another directory with --state", "nothing can be written to %s: %v", f.State, f.ReadOnly)
	case f.Free >= 0 && f.Free < freeError:
		add("disk", report.Error, "make room on the file system of "+f.State, "the disk is full: %d KB free at %s", f.Free>>10, f.State)
	case f.Free >= 0 && f.Free < freeWarning:
		add("disk", report.Warning, "make room on the file system of "+f.State, "the disk is nearly full: %d MB free at %s", f.Free>>20, f.State)
	case f.Free >= 0 && f.State != "":
		add("disk", report.OK, "", "%s has enough free space", f.State)
	}
}

// checkServer distinguishes the reasons why a server is out of reach: its name does not
// resolve, something else answers, or nothing answers.
func checkServer(f Facts, add adder) {
	if f.Status == nil || f.Status.Server.URL == "" {
		return
	}
	host := f.Status.Server.URL
	if u, err := url.Parse(host); err == nil {
		host = u.Hostname()
	}
	failed := func(h string) bool { return f.Resolve[h] != nil }
	link := f.link("server")
	switch {
	case has(f, status.CodeVersion): // it answers; checkHealth reports the reason
	case f.Status.Server.Online, f.idle() && link != nil && link.RTTms != nil:
		add("server", report.OK, "", "the server answers at %s", f.Status.Server.URL)
	case net.ParseIP(host) == nil && failed(host):
		add("dns", report.Error, "check /etc/resolv.conf and whether the machine is online", "the server's name %s does not resolve: %v", host, f.Resolve[host])
	case f.Portal != "":
		add("portal", report.Error, "open a browser on this network and sign in", "a captive portal at %s is in the way", f.Portal)
	case has(f, status.CodeServerUntrusted):
		add("server", report.Error, "check what answers: openssl s_client -connect "+hostPort(f.Status.Server.URL), "the server that this device trusts does not answer at %s, but something else: a portal, a proxy that intercepts TLS, or another machine", f.Status.Server.URL)
	case link != nil && link.RTTms == nil:
		add("server", report.Error, "check it from here: curl -kI "+f.Status.Server.URL+"/healthz", "the server at %s does not answer: %s%s", f.Status.Server.URL, link.Error, f.since())
	case f.idle():
		// The node does not contact the server until it has joined or is up again.
	default:
		add("server", report.Error, "weft status", "the server at %s did not answer the last request%s", f.Status.Server.URL, f.since())
	}
}

// idle reports whether the daemon has no reason to contact the server, so that the
// result of its last request says nothing about now.
func (f Facts) idle() bool {
	switch f.Status.State {
	case status.StateUnjoined, status.StateDown:
		return true
	}
	return false
}

// since says when the server last answered, if that is known.
func (f Facts) since() string {
	at := f.Status.Server.LastSeen
	if at == nil || f.idle() {
		return "" // a refused join is no sign of the server's state
	}
	return fmt.Sprintf("; it last answered at %s, %s", at.UTC().Format(time.DateTime), age.Ago(f.Now.Sub(*at)))
}

func (f Facts) link(kind string) *netcheck.LinkCheck {
	if f.Netcheck == nil {
		return nil
	}
	for i, l := range f.Netcheck.Links {
		if l.Kind == kind {
			return &f.Netcheck.Links[i]
		}
	}
	return nil
}

func checkRelays(f Facts, add adder) {
	if f.Status == nil || f.Netcheck == nil || f.Status.State == status.StateUnjoined || f.Status.State == status.StateDown {
		return
	}
	if f.Status.Self.Online {
		add("relay", report.OK, "", "connected to the relay %s", f.Status.Self.Relay)
	} else {
		add("relay", report.Error, "allow TCP to the addresses that weft netcheck lists", "not connected to a relay: peers reach this device only by an existing direct path")
	}
	for _, l := range f.Netcheck.Links {
		if l.Kind == "relay" && l.RTTms == nil && !l.Current {
			add("relay", report.Warning, "check it from here: curl -kI "+l.URL+"/healthz", "the relay %s at %s does not answer: %s", l.Name, l.URL, l.Error)
		}
	}
}

func checkUDP(f Facts, add adder) {
	if f.MTU > 0 && f.MTU < smallestMTU {
		add("mtu", report.Warning, "raise the MTU of the interface to 1280 or more", "the network's MTU is %d: direct paths need %d", f.MTU, smallestMTU)
	}
	if f.Netcheck == nil || len(f.Netcheck.STUN) == 0 {
		return
	}
	if f.Netcheck.UDP.Works {
		add("udp", report.OK, "", "UDP works; seen from outside this device is %s", f.Netcheck.UDP.Endpoint)
		return
	}
	if !f.answersTCP() {
		return // no answer by UDP proves nothing, and the cause has a finding already
	}
	var ports []string
	for _, s := range f.Netcheck.STUN {
		ports = append(ports, s.Server)
	}
	add("udp", report.Warning, "allow outgoing UDP to "+strings.Join(ports, ", ")+" and to any address for direct paths", "UDP is blocked here: all traffic goes through a relay over TCP, which works but is slower")
}

// answersTCP reports whether one of the servers asked by UDP is known to be up: it
// answers by TCP, or TCP was not tried.
func (f Facts) answersTCP() bool {
	alive := map[string]bool{} // by host
	for _, l := range f.Netcheck.Links {
		if u, err := url.Parse(l.URL); err == nil {
			alive[u.Hostname()] = alive[u.Hostname()] || l.RTTms != nil
		}
	}
	return slices.ContainsFunc(f.Netcheck.STUN, func(s netcheck.UDPReply) bool {
		host, _, err := net.SplitHostPort(s.Server)
		up, tried := alive[host]
		return err != nil || up || !tried
	})
}

// checkIdentity leaves a late renewal to the daemon's own warning: certificates have
// different lifetimes.
func checkIdentity(f Facts, add adder) {
	if f.Status == nil || f.Status.Self.CertificateExpires == nil {
		return
	}
	left := f.Status.Self.CertificateExpires.Sub(f.Now)
	ends := fmt.Sprintf("%d hours", int(left.Hours()))
	if left > 2*24*time.Hour {
		ends = fmt.Sprintf("%d days", int(left.Hours()/24))
	}
	switch {
	case left <= 0:
		add("certificate", report.Error, "check the connection to the server: it is renewed once the server answers", "this device's certificate ended %s", age.Ago(-left))
	case has(f, status.CodeCertificate):
		add("certificate", report.Warning, "check the connection to the server: it is renewed once the server answers", "this device's certificate ends in %s and has not been renewed", ends)
	default:
		add("certificate", report.OK, "", "the certificate is valid for another %s", ends)
	}
}

// checkHealth adds the daemon's own warnings, unless another check explains them better
// (status.Meaning).
func checkHealth(f Facts, add adder) {
	if f.Status == nil {
		return
	}
	for _, h := range f.Status.Health {
		m := h.Code.Meaning()
		if m.Explained {
			continue
		}
		level := report.Warning
		if m.Broken {
			level = report.Error
		}
		add(string(h.Code), level, cmp.Or(h.Cure(), "weft status"), "%s", h.Message)
	}
}

func has(f Facts, code status.Code) bool {
	return slices.ContainsFunc(f.Status.Health, func(h status.Health) bool { return h.Code == code })
}

func hostPort(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "443")
	}
	return u.Host
}
