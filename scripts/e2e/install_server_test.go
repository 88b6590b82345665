//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// serverLab is a machine without a server, and one for a device.
func newServerLab(t *testing.T) (l *lab.Lab, s *lab.System, install func(args ...string) lab.Result) {
	l = lab.New(t, bin)
	host := l.Host("server")
	s = l.DebianRoot(host, true, installPackages...)
	s.Must("sh", "-c", "rm /usr/local/bin/weft; mv /usr/local/bin/weft-server /root/")
	return l, s, func(args ...string) lab.Result {
		return s.Run(append([]string{"/root/weft-server", "install"}, args...)...)
	}
}

// word is the value of a line that install prints.
func word(t *testing.T, out, key string) string {
	t.Helper()
	for line := range strings.Lines(out) {
		if k, v, _ := strings.Cut(strings.TrimSpace(line), " "); k == key {
			return v
		}
	}
	t.Fatalf("no %s in %q", key, out)
	return ""
}

// The server as a service: from the program to a network with a device.
func TestInstallServer(t *testing.T) {
	t.Parallel()
	l, s, install := newServerLab(t)
	before := files(s)
	base := "https://" + s.Host.Addr
	flags := []string{"--listen", ":443", "--url", base}

	// Errors are reported before, or instead of, starting a service that cannot run.
	r := install("--ipv4", "nonsense")
	oneLine(t, r)
	taken := s.Host.Listen("0.0.0.0:443")
	r = install(flags...)
	if r.Code != 1 || !strings.Contains(r.Err, "address already in use; choose another with --listen") {
		t.Errorf("port taken: %v", r)
	}
	oneLine(t, r)
	taken.Close()

	r = install(flags...)
	if r.Code != 0 {
		t.Fatalf("%v\n%s", r, s.Run("journalctl", "-u", "weft-server", "--no-pager").Out)
	}
	token := word(t, r.Out, "token")
	if link := word(t, r.Out, "console"); !strings.HasPrefix(link, "http://127.0.0.1:8080/") {
		t.Errorf("console %s", link)
	}
	if journal := s.Run("journalctl", "-u", "weft-server", "--no-pager").Out; strings.Contains(journal, token) || strings.Contains(journal, "weft1") {
		t.Error("the journal holds a token")
	}
	state := s.Must("systemctl", "show", "weft-server", "-p", "ActiveState,Type,DynamicUser,MainPID,Result,LimitNOFILE")
	for _, want := range []string{"ActiveState=active\n", "Type=notify\n", "DynamicUser=yes\n"} {
		if !strings.Contains(state, want) {
			t.Errorf("want %s: %s", want, state)
		}
	}
	security := strings.Split(strings.TrimSpace(s.Run("systemd-analyze", "security", "--no-pager", "weft-server.service").Out), "\n")
	t.Log(security[len(security)-1])
	if !strings.Contains(security[len(security)-1], " OK ") {
		t.Errorf("%s", strings.Join(security, "\n"))
	}

	home := l.Home("pi")
	device := l.Node(home.Namespace, "kitchen-pi")
	device.Up(token)

	// Root's verbs work beside the service; the doctor only reports what a new server
	// lacks.
	findings := func() (found []struct{ Code, Level, Message string }) {
		r := s.Run("weft-server", "doctor", "--listen", ":443", "--json")
		var d struct {
			Findings []struct{ Code, Level, Message string }
		}
		if err := json.Unmarshal([]byte(r.Out), &d); err != nil {
			t.Fatalf("%v: %v", err, r)
		}
		return d.Findings
	}
	for _, f := range findings() {
		if f.Level == "error" || f.Level == "warning" && f.Code != "release" && f.Code != "disk" {
			t.Errorf("%+v", f)
		}
	}
	s.Must("weft-server", "backup", "--key-file", "/root/backup.key", "-o", "/root/backup")
	if found := fmt.Sprint(findings()); !strings.Contains(found, "the last backup is of") {
		t.Error(found)
	}

	// Changed flags and an upgrade keep the network.
	r = install(append(flags, "--stun", ":3479")...)
	if r.Code != 0 || !strings.Contains(r.Out, "installed and running") {
		t.Errorf("again: %v", r)
	}
	device.Must("wait", "--timeout", "30s")
	s.Reboot()
	l.Until(30*time.Second, "the server is back after a reboot", func() bool {
		return s.Run("systemctl", "is-active", "weft-server").Code == 0
	})
	device.Must("wait", "--timeout", "45s")

	s.Must("systemctl", "stop", "weft-server")
	if r := s.Run("weft-server", "doctor", "--listen", ":443"); r.Code != 1 || !strings.Contains(r.Out, "FAIL  server: the server does not run") || !strings.Contains(r.Out, "ok    database") {
		t.Errorf("%v", r)
	}
	s.Must("systemctl", "start", "weft-server")
	device.Must("wait", "--timeout", "45s")

	s.Must("weft-server", "uninstall")
	if r := s.Run("test", "-s", "/var/lib/private/weft-server/weft.db"); r.Code != 0 {
		t.Error("the data is gone")
	}
	if r := install(flags...); r.Code != 0 || !strings.Contains(r.Out, "installed and running") {
		t.Errorf("once more: %v", r)
	}
	device.Must("wait", "--timeout", "45s")
	s.Must("weft-server", "uninstall", "--purge")
	for _, f := range added(before, files(s)) {
		if !strings.HasPrefix(f, "/root/backup") {
			t.Errorf("left behind: %s", f)
		}
	}
}

// A separate relay as a service: it joins with a token that is not stored, returns
// after a reboot, and can be uninstalled.
func TestInstallRelay(t *testing.T) {
	t.Parallel()
	l, at, _ := newServerLab(t)
	host := l.Host("coord")
	s := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
	before := files(at)
	flags := []string{"/root/weft-server", "relay", "--install", "--listen", ":443", "--url", "https://" + at.Host.Addr}
	r := at.Run(flags...)
	if r.Code != 2 || !strings.Contains(r.Err, "keys create --relay") {
		t.Errorf("without a token: %v", r)
	}
	oneLine(t, r)
	token := s.NewKey("--relay").Token
	if r := at.Run(append(flags, "--token", token)...); r.Code != 0 {
		t.Fatalf("%v\n%s", r, at.Run("journalctl", "-u", "weft-relay", "--no-pager").Out)
	}
	online := func() bool {
		for _, r := range relays(t, s) {
			if r.Online {
				return true
			}
		}
		return false
	}
	l.Until(20*time.Second, "the relay is online", online)
	if r := at.Run("grep", "-r", "weft1", "/etc/systemd/system/weft-relay.service"); r.Code == 0 {
		t.Error("the unit holds the token")
	}
	if state := at.Must("systemctl", "show", "weft-relay", "-p", "ActiveState,Type,DynamicUser"); !strings.Contains(state, "ActiveState=active") || !strings.Contains(state, "DynamicUser=yes") {
		t.Error(state)
	}
	if r := at.Run(flags...); r.Code != 0 { // an upgrade needs no token
		t.Errorf("again: %v", r)
	}
	at.Reboot()
	l.Until(60*time.Second, "the relay is online after a reboot", func() bool {
		return at.Run("systemctl", "is-active", "weft-relay").Code == 0 && online()
	})
	at.Must("weft-server", "relay", "--uninstall", "--purge")
	if r := at.Run("systemctl", "is-active", "weft-relay"); r.Code == 0 {
		t.Error("it still runs")
	}
	for _, f := range added(before, files(at)) {
		t.Errorf("left behind: %s", f)
	}
}
