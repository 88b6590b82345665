package service

import (
	"encoding/xml"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// odd is a service with everything in it that a careless writer of files trips
// over.
var odd = Service{
	Name: "weft", Description: "weft: it's <odd> & works", Program: "/opt/a b/we'ft",
	Args:    []string{"run", "--hostname", `50% "$HOME"; id`, ""},
	Cleanup: []string{"dns", "restore"}, Environment: []string{"WEFT_STATE=/var/a b", "WEFT_X=1"},
	User: "weft-node", Group: "weft",
}

// value returns what follows KEY= in a unit.
func value(t *testing.T, unit, key string) string {
	t.Helper()
	for line := range strings.Lines(unit) {
		if v, ok := strings.CutPrefix(line, key+"="); ok {
			return strings.TrimSpace(v)
		}
	}
	t.Fatalf("no %s in %s", key, unit)
	return ""
}

func TestSystemd(t *testing.T) {
	unit := odd.Systemd()
	for key, want := range map[string]string{
		"ExecStart":               `"/opt/a b/we'ft" run --hostname "50%% \"$$HOME\"; id" ""`,
		"ExecStopPost":            `-+"/opt/a b/we'ft" dns restore`,
		"Type":                    "notify",
		"WatchdogSec":             "600",
		"Restart":                 "always",
		"DynamicUser":             "yes",
		"User":                    "weft-node",
		"SupplementaryGroups":     "weft",
		"StateDirectory":          "weft",
		"NoNewPrivileges":         "yes",
		"ProtectSystem":           "strict",
		"MemoryDenyWriteExecute":  "yes",
		"RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX AF_NETLINK",
		"CapabilityBoundingSet":   "",
		"WantedBy":                "multi-user.target",
	} {
		if got := value(t, unit, key); got != want {
			t.Errorf("%s=%s, want %s", key, got, want)
		}
	}
	if !strings.Contains(unit, "Environment=\"WEFT_STATE=/var/a b\"\n") {
		t.Error(unit)
	}
	low := odd
	low.LowPorts = true
	if got := value(t, low.Systemd(), "CapabilityBoundingSet"); got != "CAP_NET_BIND_SERVICE" {
		t.Errorf("low ports: %s", got)
	}
	if user := odd.SystemdUser(); strings.Contains(user, "DynamicUser") || value(t, user, "WantedBy") != "default.target" {
		t.Error(user)
	}
	if tun := odd.SystemdTUN("weft0"); value(t, tun, "DeviceAllow") != "/dev/net/tun rw" || !strings.Contains(tun, "CAP_NET_ADMIN") {
		t.Error(tun)
	}
}

// words runs a shell on a script that ends in words and returns them.
func words(t *testing.T, script string) []string {
	t.Helper()
	out, err := exec.Command("sh", "-c", script).Output()
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}

// What a shell makes of the files is what was meant.
func TestShellFiles(t *testing.T) {
	want := append([]string{odd.Program}, odd.Args...)
	procd := odd.Procd()
	_, line, _ := strings.Cut(procd, "procd_set_param command ")
	line, _, _ = strings.Cut(line, "\n")
	if got := words(t, `set -- `+line+`; printf '%s\0' "$@"`); !slices.Equal(got, want) {
		t.Errorf("procd: %q", got)
	}
	openrc := odd.OpenRC()
	got := words(t, strings.ReplaceAll(openrc, "#!/sbin/openrc-run\n", "")+"\n"+`eval "set -- $command_args"; printf '%s\0' "$command" "$@"`)
	if !slices.Equal(got, want) {
		t.Errorf("openrc: %q", got)
	}
	for name, text := range map[string]string{"procd": procd, "openrc": openrc} {
		cmd := exec.Command("sh", "-n")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		if !strings.Contains(text, "dns restore || true") {
			t.Errorf("%s does not clean up: %s", name, text)
		}
	}
}

func TestLaunchd(t *testing.T) {
	d := xml.NewDecoder(strings.NewReader(odd.Launchd("/var/log/weft.log")))
	var got []string
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := tok.(xml.StartElement); ok && s.Name.Local == "string" {
			var v string
			if err := d.DecodeElement(&v, &s); err != nil {
				t.Fatal(err)
			}
			got = append(got, v)
		}
	}
	for _, w := range append([]string{"net.weft.weft", odd.Program, "/var/a b"}, odd.Args...) {
		if !slices.Contains(got, w) {
			t.Errorf("%q is not in %q", w, got)
		}
	}
}

// Every way to install has one to uninstall that takes its files away.
func TestPlans(t *testing.T) {
	place := Place{Home: "/home/u", Config: "/home/u/.config"}
	for _, k := range []Kind{Systemd, SystemdUser, Procd, OpenRC, Launchd, Windows} {
		in, out := odd.Install(k, place, "weft0", true), odd.Uninstall(k, place)
		if len(in.Commands) == 0 || len(out.Commands) == 0 {
			t.Errorf("%s: nothing is done", k)
		}
		for _, f := range in.Files {
			if !filepath.IsAbs(f.Path) || f.Content == "" || !slices.Contains(out.Remove, f.Path) {
				t.Errorf("%s: %s stays", k, f.Path)
			}
		}
		if later := odd.Install(k, place, "", false); len(later.Commands) >= len(in.Commands) {
			t.Errorf("%s: it is started although it is to wait", k)
		}
		if text, err := odd.Text(k); k != Windows && (err != nil || text == "") {
			t.Errorf("%s: %v", k, err)
		}
	}
	if got := odd.windowsCommand(); !strings.HasPrefix(got, `"/opt/a b/we'ft" run --hostname `) {
		t.Error(got)
	}
}

func TestDetect(t *testing.T) {
	root := func(paths ...string) string {
		dir := t.TempDir()
		for _, p := range paths {
			os.MkdirAll(filepath.Join(dir, filepath.Dir(p)), 0o755)
			os.WriteFile(filepath.Join(dir, p), nil, 0o755)
		}
		return dir
	}
	for _, c := range []struct {
		goos, root string
		user       bool
		want       Kind
	}{
		{"linux", root("run/systemd/system/x"), false, Systemd},
		{"linux", root("run/systemd/system/x"), true, SystemdUser},
		{"linux", root("sbin/procd"), false, Procd},
		{"linux", root("sbin/openrc-run"), false, OpenRC},
		{"linux", root("sbin/procd"), true, ""},
		{"linux", root(), false, ""},
		{"darwin", root(), false, Launchd},
		{"windows", root(), false, Windows},
		{"freebsd", root(), false, ""},
	} {
		if got, err := Detect(c.goos, c.root, c.user); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s %v: %q, %v", c.goos, c.user, got, err)
		}
	}
}

func TestApply(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "unit")
	plan := Plan{Files: []File{{path, 0o600, "text"}}, Commands: []Command{try("false"), run("true")}, Remove: []string{filepath.Join(dir, "not there")}}
	for range 2 { // again is harmless
		if err := Apply(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
	plan.Commands = []Command{run("sh", "-c", "echo broken; exit 3")}
	if err := Apply(t.Context(), plan); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a command that fails: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "a", ".*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}
