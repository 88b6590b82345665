package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestFlagsThatAreRefused(t *testing.T) {
	for _, args := range [][]string{
		{"serve", "--metrics", ":9273"}, {"serve", "--metrics", "192.0.2.1:9273"}, {"relay", "--metrics", "0.0.0.0:9273"},
		{"serve", "--log-format", "xml"}, {"relay", "--log-format", "xml"}, {"serve", "--acme-ca", "x.pem"}, {"install", "--data", "/elsewhere"},
	} {
		var out, errs bytes.Buffer
		if args[0] != "install" {
			args = append(args, "--data", t.TempDir())
		}
		if code := run(args, &out, &errs); code != 2 || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%q: exit %d, %s", args, code, &errs)
		}
	}
}

// The unit hands the flags of serve on, and has the one right that a low port
// takes.
func TestInstallPrint(t *testing.T) {
	print := func(args ...string) string {
		var out, errs bytes.Buffer
		if code := run(append([]string{"install", "--print", "systemd"}, args...), &out, &errs); code != 0 {
			t.Fatalf("%q: exit %d, %s", args, code, &errs)
		}
		return out.String()
	}
	low := print("--listen", ":443", "--url", "https://a.example", "--url", "https://192.0.2.1", "--domain", "a.example", "--stun", "off")
	for _, want := range []string{
		"ExecStart=/usr/local/bin/weft-server serve --data /var/lib/weft-server --domain=a.example --listen=:443 --stun=off --url https://a.example --url https://192.0.2.1\n",
		"AmbientCapabilities=CAP_NET_BIND_SERVICE\n", "DynamicUser=yes\n", "StateDirectory=weft-server\n",
	} {
		if !strings.Contains(low, want) {
			t.Errorf("want %s in\n%s", want, low)
		}
	}
	if high := print(); strings.Contains(high, "CAP_NET_BIND_SERVICE") || strings.Contains(high, "print") {
		t.Error(high)
	}
}
