//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/overlay/release"
	"weft/scripts/e2e/lab"
)

// released makes a release of the current commit, for this machine and for others whose
// programs run in qemu. WEFT_E2E_RELEASE is a prebuilt one.
func released(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("WEFT_E2E_RELEASE"); dir != "" {
		return dir
	}
	work := t.TempDir()
	out := filepath.Join(work, "releases")
	// Use a clone: the work tree may differ from the commit, which scripts/release
	// refuses.
	for _, args := range [][]string{
		{"git", "clone", "--quiet", "../..", filepath.Join(work, "weft")},
		{filepath.Join(work, "weft", "scripts", "release"), "--key", filepath.Join(work, "key"), "--out", out, "linux/amd64", "linux/armv7", "linux/mipsle", "linux/riscv64"},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, b)
		}
	}
	return out
}

// The results of scripts/release: packages that their own tools accept, and programs
// that run on their systems.
func TestRelease(t *testing.T) {
	t.Parallel()
	dir := released(t)
	d, err := release.Open(dir) // the signature
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, f := range d.Files {
		if size, sum, err := release.Sum(filepath.Join(dir, f.Name)); err != nil || size != f.Size || sum != f.SHA256 {
			t.Errorf("%s is not what the manifest says: %v", f.Name, err)
		}
	}

	l := lab.New(t, bin)
	host := l.Host("server")
	server := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
	laptop := l.Node(l.Home("lap").Namespace, "laptop")
	laptop.Up(server.NewKey().Token)
	fetchPage := func(name string) {
		t.Helper()
		l.Until(60*time.Second, name+" is reached", func() bool {
			body, err := laptop.Get("http://"+name+"/", 10*time.Second)
			return err == nil && strings.HasPrefix(body, "kitchen GET ")
		})
	}
	pi := l.Home("pi")
	pi.Serve("127.0.0.1:80", lab.Page)
	s := l.DebianRoot(pi.Namespace, true, "curl", "qemu-user-static", "rpm")
	s.Must("sh", "-c", "rm -f /usr/local/bin/weft /usr/local/bin/weft-server; mkdir /srv/release")
	for _, f := range d.Files {
		if f.OS == "linux" && (f.Program == "weft" || f.Kind == "deb") {
			b, err := os.ReadFile(filepath.Join(dir, f.Name))
			if err != nil {
				t.Fatal(err)
			}
			s.WriteFile("/srv/release/"+f.Name, string(b))
		}
	}
	contains := func(what, text string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: want %q in\n%s", what, w, text)
			}
		}
	}

	t.Run("deb", func(t *testing.T) {
		deb := "/srv/release/weft-linux-amd64.deb"
		contains("dpkg-deb -I", s.Must("dpkg-deb", "-I", deb), "Package: weft", "Architecture: amd64", "postinst", "prerm", "Version: "+d.Version)
		contains("dpkg-deb -c", s.Must("dpkg-deb", "-c", deb), "-rwxr-xr-x root/root", "./usr/bin/weft", "./usr/lib/systemd/system/weft.service", "./usr/share/doc/weft/NOTICES")
		contains("dpkg-deb -I", s.Must("dpkg-deb", "-I", "/srv/release/weft-linux-armv7.deb"), "Architecture: armhf")
		before := files(s)
		if r := s.Run("dpkg", "-i", deb); r.Code != 0 {
			t.Fatalf("%v", r)
		}
		s.Must("systemctl", "is-active", "weft")
		s.Must("systemctl", "is-enabled", "weft")
		s.Must("weft", "up", server.NewKey().Token)
		s.Must("weft", "wait", "--timeout", "30s")
		var device string
		for _, dev := range server.Devices() {
			if dev.Name != "laptop" {
				device = dev.Name
			}
		}
		fetchPage(device)
		if r := s.Run("dpkg", "-i", deb); r.Code != 0 { // an upgrade
			t.Errorf("%v", r)
		}
		fetchPage(device)
		s.Must("weft", "logout")
		s.Must("dpkg", "--purge", "weft")
		for _, f := range added(before, files(s)) {
			if !strings.HasPrefix(f, "/var/lib/") && !strings.HasPrefix(f, "weft:x:") {
				t.Errorf("left behind: %s", f)
			}
		}
	})

	t.Run("rpm", func(t *testing.T) {
		rpm := "/srv/release/weft-linux-amd64.rpm"
		contains("rpm -qip", s.Must("rpm", "-qip", rpm), "Name        : weft", "Architecture: x86_64")
		contains("rpm -qlp", s.Must("rpm", "-qlp", rpm), "/usr/bin/weft\n", "/usr/lib/systemd/system/weft.service\n", "/usr/share/doc/weft/NOTICES\n")
		contains("rpm --scripts", s.Must("rpm", "-qp", "--scripts", rpm), "postinstall scriptlet", "preuninstall scriptlet", "systemctl enable")
		contains("rpm -K", s.Must("rpm", "-K", "--nosignature", rpm), "digests OK")
	})

	t.Run("apk", func(t *testing.T) {
		apk := "/srv/release/weft-linux-amd64.apk"
		list := s.Must("tar", "-tzf", apk)
		contains("apk", list, ".PKGINFO", ".post-install", ".pre-deinstall", "usr/bin/weft", "etc/init.d/weft", "usr/share/doc/weft/NOTICES")
		contains(".PKGINFO", s.Must("tar", "-xzOf", apk, ".PKGINFO"), "pkgname = weft", "arch = x86_64")
		contains("init", s.Must("tar", "-xzOf", apk, "etc/init.d/weft"), "#!/sbin/openrc-run", "/usr/bin/weft")
	})

	t.Run("ipk", func(t *testing.T) {
		for _, arch := range []string{"amd64", "mipsle"} {
			ipk := "/srv/release/weft-linux-" + arch + ".ipk"
			contains("ipk", s.Must("tar", "-tzf", ipk), "debian-binary", "control.tar.gz", "data.tar.gz")
			contains("control", s.Must("sh", "-c", "tar -xzOf "+ipk+" ./control.tar.gz | tar -tzf -"), "control", "postinst", "prerm")
			contains("data", s.Must("sh", "-c", "tar -xzOf "+ipk+" ./data.tar.gz | tar -tzvf -"), "usr/bin/weft", "-rwxr-xr-x", "etc/init.d/weft", "usr/share/doc/weft/NOTICES")
		}
	})

	t.Run("other machines", func(t *testing.T) {
		for arch, qemu := range map[string]string{"armv7": "arm", "mipsle": "mipsel", "riscv64": "riscv64"} {
			program := "/srv/release/weft-linux-" + arch
			s.Must("chmod", "755", program)
			contains(arch, s.Must("qemu-"+qemu+"-static", program, "version"), d.Version)
		}
		// Join and first byte, slowly.
		s.WriteFile("/root/token", server.NewKey().Token+"\n")
		s.Start("qemu-arm-static", "/srv/release/weft-linux-armv7", "run", "--state", "/root/state", "--socket", "/root/weft.sock", "--hostname", "old-pi", "--token-file", "/root/token")
		l.Until(60*time.Second, "the ARM program has joined", func() bool { _, ok := server.Device("old-pi"); return ok })
		fetchPage("old-pi")
	})
}
