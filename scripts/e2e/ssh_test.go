//go:build e2e

package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// sshServer runs OpenSSH on the device's loopback and returns the options of a client
// that trusts it and may log in as root.
func sshServer(t *testing.T, m *lab.Mesh) []string {
	t.Helper()
	dir := m.Mkdir("ssh")
	for _, name := range []string{"host", "user"} {
		if r := m.DeviceHome.Run(lab.Nobody, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", dir+"/"+name); r.Code != 0 {
			t.Fatal(r)
		}
	}
	pub, err := os.ReadFile(dir + "/host.pub")
	if err != nil {
		t.Fatal(err)
	}
	known := m.WriteFile("known_hosts", "kitchen-pi "+string(pub))
	// sshd requires its host key to belong to root, and this directory.
	os.Chown(dir+"/host", 0, 0)
	os.MkdirAll("/run/sshd", 0o755)
	config := m.WriteFile("sshd_config", fmt.Sprintf(`ListenAddress 127.0.0.1:22
HostKey %[1]s/host
AuthorizedKeysFile %[1]s/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
PerSourceMaxStartups none
Subsystem sftp internal-sftp
`, dir))
	m.DeviceHome.Start(lab.Root, "/usr/sbin/sshd", "-D", "-e", "-f", config)
	m.Until(5*time.Second, "sshd listens", func() bool {
		c, err := m.DeviceHome.Dial(t.Context(), "tcp", "127.0.0.1:22")
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return []string{"-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes",
		"-o", "UserKnownHostsFile=" + known, "-o", "GlobalKnownHostsFile=/dev/null", "-i", dir + "/user"}
}

func proxyCommand(n *lab.Node) []string {
	return []string{"-o", "ProxyCommand=weft nc --socket " + n.Sock + " %h %p"}
}

func testSSH(t *testing.T, m *lab.Mesh) {
	lap := m.Laptop
	opts := sshServer(t, m)
	via := append(proxyCommand(lap), opts...)
	join := func(lists ...[]string) (out []string) {
		for _, l := range lists {
			out = append(out, l...)
		}
		return out
	}
	r := lap.Host.Run(lab.Nobody, join([]string{"ssh"}, via, []string{"root@kitchen-pi", "echo over; id -u; exit 7"})...)
	if r.Code != 7 || r.Out != "over\n0\n" {
		t.Fatalf("ssh: want the remote's output and exit code 7: %v", r)
	}
	// Names as people type them: options first, in upper case, addresses.
	st := m.Device.Status().Self
	alias := append([]string{"-o", "HostKeyAlias=kitchen-pi"}, opts...)
	for _, target := range []string{"root@kitchen-pi", "root@KITCHEN-PI", "root@kitchen-pi.", "root@kitchen-pi.weft.internal", "root@" + st.IPv4, "root@" + st.IPv6, "root@[" + st.IPv6 + "]"} {
		if r := lap.Weft(join([]string{"ssh", "-p", "22", "-T"}, alias, []string{target, "-q", "echo hi"})...); r.Code != 0 || r.Out != "hi\n" {
			t.Errorf("weft ssh with options first: %v", r)
		}
	}
	if r := lap.Weft(join([]string{"ssh", "-v"}, opts, []string{`CORP\alice@kitchen-pi`, "echo hi"})...); r.Code != 255 || !strings.Contains(r.Err, "Permission denied") {
		t.Errorf("a user of a directory service is not asked for: %v", r)
	}
	r = lap.Weft(join([]string{"ssh", "root@kitchen-pi"}, opts, []string{"cat; exit 9"})...)
	if r.Code != 9 {
		t.Errorf("weft ssh: want the remote's exit code 9: %v", r)
	}
	r = lap.WeftInput("through\n", join([]string{"ssh", "root@kitchen-pi"}, opts, []string{"cat"})...)
	if r.Code != 0 || r.Out != "through\n" {
		t.Errorf("weft ssh passes standard input: %v", r)
	}
	if r := lap.Weft("ssh", "-oProxyCommand=touch@x"); r.Code != 2 {
		t.Errorf("a name that looks like a flag: %v", r)
	}

	data := make([]byte, 100<<20)
	rand.Read(data)
	dir := m.Mkdir("scp")
	if err := os.WriteFile(dir+"/up", data, 0o644); err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256(data)
	data = nil
	for _, c := range []struct{ from, to, file string }{
		{dir + "/up", "root@kitchen-pi:" + dir + "/there", dir + "/there"},
		{"root@kitchen-pi:" + dir + "/there", dir + "/back", dir + "/back"},
	} {
		r := lap.Host.Run(lab.Nobody, join([]string{"scp", "-q"}, via, []string{c.from, c.to})...)
		got, err := os.ReadFile(c.file)
		if r.Code != 0 || err != nil || sha256.Sum256(got) != want {
			t.Errorf("100 MB came as %d bytes (%v): %v", len(got), err, r)
			continue
		}
		t.Logf("scp of 100 MB: %v, %.0f Mbit/s", r.Took.Round(time.Millisecond), float64(len(got))*8/r.Took.Seconds()/1e6)
	}
	if files, _ := os.ReadDir(dir); len(files) != 3 {
		t.Errorf("scp: %d files, want 3", len(files))
	}
}
