//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"weft/cmd/internal/cli/clitest"
	"weft/dns"
	"weft/overlay/localapi"
	"weft/overlay/status"
)

// TestJSONEverywhere asks every verb for JSON: an object that names its schema. Add new
// verbs here.
func TestJSONEverywhere(t *testing.T) {
	dir, err := os.MkdirTemp("", "weft") // a socket path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	sock := filepath.Join(dir, "s")
	l, err := localapi.Listen(sock, "")
	if err != nil {
		t.Fatal(err)
	}
	node := &fakeNode{state: status.StateUnjoined}
	resolver := dns.New(dnsConfig(node, slog.New(slog.DiscardHandler)))
	defer resolver.Close()
	srv := localapi.NewServer(localapi.ServerConfig{Node: node, DNS: queryDNS(resolver), Resolver: resolverAPI(resolver)})
	defer srv.Close()
	go srv.Serve(l)
	t.Setenv("WEFT_SOCKET", sock)
	t.Setenv("XDG_STATE_HOME", dir)

	const (
		elsewhere = "elsewhere" // needs a machine of its own, or is tested below
		stream    = "stream"    // its output is the device's, with no room for ours
	)
	runs := []struct{ verb, args, schema string }{
		{"up", "weft1abc", "status/1"},
		{"logout", "", "status/1"},
		{"up", "--server https://vpn.example", "status/1"},
		{"down", "", "status/1"},
		{"up", "", "status/1"},
		{"wait", "", "status/1"},
		{"status", "", "status/1"},
		{"status", "kitchen-pi", "status/1"},
		{"ip", "", "ip/1"},
		{"ping", "kitchen-pi -c 2 --interval 0s", "ping/1"},
		{"dns query", "kitchen-pi", "dns/1"},
		{"dns trace", "kitchen-pi", "dns/1"},
		{"dns status", "", "dns-status/1"},
		{"dns flush", "", "dns-flush/1"},
		{"dns restore", "", elsewhere},
		{"netcheck", "", elsewhere}, // fakeNode measures nothing
		{"doctor", "--state " + dir, "doctor/1"},
		{"doctor", "--fips", "fips/1"},
		{"bugreport", "-o " + filepath.Join(dir, "report"), "bugreport/1"},
		{"install", "--print systemd", "service-file/1"},
		{"uninstall", "", elsewhere},
		{"forward", "", elsewhere}, // tested below
		{"run", "", elsewhere},     // tested below
		{"nc", "", stream},
		{"ssh", "", stream},
		{"version", "", "version/1"},
		{"logout", "", "status/1"},
		{"logout", "", "status/1"}, // of a device that has not joined
	}
	verbs := clitest.Verbs(newRoot())
	for _, r := range runs {
		cmd := verbs[r.verb]
		if cmd == nil {
			t.Errorf("there is no verb %s", r.verb)
			continue
		}
		if has := cmd.Flag("json") != nil; has != (r.schema != stream) {
			t.Errorf("%s has --json: %v", r.verb, has)
			continue
		}
		if r.schema == stream || r.schema == elsewhere {
			continue
		}
		var out, errs bytes.Buffer
		code := run(append(strings.Fields(r.verb+" "+r.args), "--json"), strings.NewReader(""), &out, &errs)
		if code != 0 && r.verb != "doctor" {
			t.Errorf("%s %s --json: exit %d: %s", r.verb, r.args, code, &errs)
		}
		clitest.IsObject(t, r.verb, out.String(), r.schema)
	}
	for _, r := range runs {
		delete(verbs, r.verb)
	}
	if len(verbs) > 0 {
		t.Errorf("verbs not tested for JSON: %q", slices.Sorted(maps.Keys(verbs)))
	}

	// Verbs that run until interrupted print one object once they serve.
	node.state = status.StateRunning
	for _, args := range [][]string{
		{"forward", "0:kitchen-pi:80", "0:kitchen-pi:81"},
		{"run", "--state", filepath.Join(dir, "own"), "--socket", filepath.Join(dir, "own.s"), "--proxy", "127.0.0.1:0", "--dns", "off", "--portmap", "off"},
	} {
		out, w := io.Pipe()
		done := make(chan int, 1)
		go func() {
			done <- run(append(args, "--json"), strings.NewReader(""), w, io.Discard)
			w.Close()
		}()
		d := json.NewDecoder(out)
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			t.Fatalf("%q: %v, exit %d", args, err, <-done)
		}
		clitest.IsObject(t, args[0], string(raw), args[0]+"/1")
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
		if err := d.Decode(&raw); err != io.EOF {
			t.Errorf("%s prints more than one object: %v", args[0], err)
		}
		if code := <-done; code != 0 && code != 130 {
			t.Errorf("%s: exit %d", args[0], code)
		}
	}
}
