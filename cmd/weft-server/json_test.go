package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"weft/cmd/internal/cli/clitest"
	"weft/coord"
	"weft/coord/ops"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// TestJSONEverywhere asks every verb for JSON: an object that says its schema, but
// for the devices' list, which is an array by contract. A new verb belongs in here.
func TestJSONEverywhere(t *testing.T) {
	for _, running := range []bool{false, true} {
		t.Run(fmt.Sprintf("running=%v", running), func(t *testing.T) { testJSONEverywhere(t, running) })
	}
}

func testJSONEverywhere(t *testing.T, running bool) {
	data, dir := newData(t), t.TempDir()
	t.Setenv("WEFT_DATA", data)
	rules := filepath.Join(dir, "policy")
	if err := os.WriteFile(rules, []byte(`{"rules":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VISUAL", "true")
	token := func(flags ...string) (k ops.KeyCreated) {
		_, out, _ := verb(t, append([]string{"keys", "create", "--json"}, flags...)...)
		if err := json.Unmarshal([]byte(out), &k); err != nil {
			t.Fatal(err)
		}
		return k
	}
	addDevices(t, data, "kitchen-pi", "attic", "hall")
	if running {
		startServer(t, data)
	}
	verb(t, "users", "create", "deploy", "--service")
	var apiToken ops.TokenCreated
	if _, out, _ := verb(t, "tokens", "create", "deploy", "--json"); json.Unmarshal([]byte(out), &apiToken) != nil {
		t.Fatal(out)
	}
	backup, key := filepath.Join(dir, "backup"), filepath.Join(dir, "key")
	_, out, _ := verb(t, "webhooks", "create", "https://127.0.0.1:1/", "--allow-target", "127.0.0.1", "--json")
	var hook ops.WebhookCreated
	if err := json.Unmarshal([]byte(out), &hook); err != nil {
		t.Fatal(err)
	}
	// What takes a machine of its own is looked at for the flag only: elsewhere.
	const elsewhere = "elsewhere"
	runs := []struct{ verb, args, schema string }{
		{"keys create", "", "key/1"},
		{"keys revoke", token().ID, "key-revoked/1"},
		{"keys list", "", "keys/1"},
		{"keys show", token().ID, "key-show/1"},
		{"keys", "", "keys/1"},
		{"devices list", "", "[]"},
		{"devices", "", "[]"},
		{"devices show", "kitchen-pi", "device/1"},
		{"devices waiting", "", "requests/1"},
		{"devices approve", "", elsewhere}, // TestDevicesApprove
		{"devices deny", "", elsewhere},
		{"devices rename", "attic loft", "device/1"},
		{"devices edit", "loft --tag camera --user admin", "device/1"},
		{"devices replace", "loft hall", "device/1"},
		{"devices delete", "loft", "device/1"},
		{"relays list", "", "relays/1"},
		{"relays", "", "relays/1"},
		{"relays remove", "", elsewhere}, // TestServeJSON
		{"dns show", "", "dns-settings/1"},
		{"dns set", "ttl=30", "dns-settings/1"},
		{"dns records add", "www A 192.0.2.1", "dns-settings/1"},
		{"dns records list", "", "dns-records/1"},
		{"dns records", "", "dns-records/1"},
		{"dns records remove", "www", "dns-settings/1"},
		{"dns routes add", "corp.example 10.0.0.5", "dns-settings/1"},
		{"dns routes list", "", "dns-routes/1"},
		{"dns routes", "", "dns-routes/1"},
		{"dns routes remove", "corp.example", "dns-settings/1"},
		{"dns nameservers set", "192.0.2.53", "dns-settings/1"},
		{"dns nameservers list", "", "dns-nameservers/1"},
		{"dns nameservers", "", "dns-nameservers/1"},
		{"dns nameservers clear", "", "dns-settings/1"},
		{"dns search set", "corp.example", "dns-settings/1"},
		{"dns search list", "", "dns-search/1"},
		{"dns search", "", "dns-search/1"},
		{"dns search clear", "", "dns-settings/1"},
		{"devices rename", "kitchen-pi pantry", "device/1"}, // leaves a former name
		{"dns aliases list", "", "dns-aliases/1"},
		{"dns aliases", "", "dns-aliases/1"},
		{"dns aliases remove", "kitchen-pi", "dns-settings/1"},
		{"dns device", "pantry --wildcard on", "device/1"},
		{"dns preview", "www", "dns-preview/1"},
		{"policy show", "", "policy/1"},
		{"policy check", rules, "policy-check/1"},
		{"policy diff", rules, "policy-diff/1"},
		{"policy apply", rules, "policy/1"},
		{"policy history", "", "policy-history/1"},
		{"policy revert", "0 --yes", "policy/1"},
		{"policy edit", "", "policy/1"}, // EDITOR changes nothing
		{"can", "admin pantry:22", "can/1"},
		{"reach", "admin", "reach/1"},
		{"login-link", "", "login-link/1"},
		{"users create", "alice", "user/1"},
		{"users invite", "ivy --role auditor", "invitation/1"},
		{"users revoke-invitation", "ivy", "user/1"},
		{"users list", "", "users/1"},
		{"users", "", "users/1"},
		{"users reset-second-factor", "alice", "user/1"},
		{"oidc add", "work --issuer https://accounts.example.org --client-id weft", "oidc-provider/1"},
		{"oidc list", "", "oidc-providers/1"},
		{"oidc", "", "oidc-providers/1"},
		{"oidc edit", "work --admit groups=weft --title Work", "oidc-provider/1"},
		{"oidc remove", "work", "oidc-provider/1"},
		{"oidc people", "", "oidc-people/1"},
		{"oidc approve", "", elsewhere}, // coord/webapi: nobody waits here
		{"oidc deny", "", elsewhere},
		{"sign-in show", "", "sign-in/1"},
		{"sign-in set", "--second-factor off --device-days 30", "sign-in/1"},
		{"users edit", "alice --role auditor", "user/1"},
		{"groups create", "family", "group/1"},
		{"groups add", "family alice", "group/1"},
		{"users edit", "alice --remove-group family", "user/1"},
		{"groups list", "", "groups/1"},
		{"groups", "", "groups/1"},
		{"groups remove", "family alice", "group/1"},
		{"groups delete", "family", "group/1"},
		{"users suspend", "alice", "user/1"},
		{"users resume", "alice", "user/1"},
		{"users delete", "alice", "user/1"},
		{"tokens create", "deploy", "token/1"},
		{"tokens list", "", "tokens/1"},
		{"tokens", "", "tokens/1"},
		{"tokens revoke", apiToken.ID, "token-revoked/1"},
		{"audit list", "", "audit-list/1"},
		{"audit", "", "audit-list/1"},
		{"audit verify", "", "audit-verify/1"},
		{"audit head", "", "audit-head/1"},
		{"audit retention show", "", "audit-settings/1"},
		{"audit retention set", "90d", "audit-settings/1"},
		{"audit trim", "--before 90d", "audit-trim/1"},
		{"audit introductions", "", "audit-introductions/1"},
		{"audit introductions list", "", "audit-introductions/1"},
		{"audit introductions set", "--tag camera on", "audit-settings/1"},
		{"audit export", "", elsewhere}, // TestAudit: one object a line
		{"webhooks create", "https://192.0.2.1/", "webhook-secret/1"},
		{"webhooks list", "", "webhooks/1"},
		{"webhooks", "", "webhooks/1"},
		{"webhooks show", hook.ID, "webhook/1"},
		{"webhooks edit", hook.ID + " --note x", "webhook/1"},
		{"webhooks rotate", hook.ID, "webhook-secret/1"},
		{"webhooks test", "", elsewhere}, // TestWebhookVerbs
		{"webhooks delete", hook.ID, "webhook/1"},
		{"backup", "--key-file " + key + " --output " + backup, "backup/1"},
		{"restore", "--key-file " + key + " --data " + filepath.Join(dir, "restored") + " " + backup, "restore/1"},
		{"doctor", "--listen 127.0.0.1:0 --console off --stun off", "doctor/1"},
		{"doctor", "--fips", "fips/1"},
		{"version", "", "version/1"},
		{"install", "--print systemd --data " + installedData, "service-file/1"},
		{"uninstall", "", elsewhere},
		{"serve", "", elsewhere}, // TestServeJSON
		{"relay", "", elsewhere}, // likewise
	}
	verbs := clitest.Verbs(newRoot())
	for _, r := range runs {
		cmd := verbs[r.verb]
		if cmd == nil {
			t.Errorf("there is no verb %s", r.verb)
			continue
		}
		if cmd.Flag("json") == nil {
			t.Errorf("%s has no --json", r.verb)
			continue
		}
		if r.schema == elsewhere {
			continue
		}
		code, out, errs := verb(t, append(strings.Fields(r.verb+" "+r.args), "--json")...)
		if code != 0 && r.verb != "doctor" {
			t.Errorf("%s %s --json: exit %d: %s", r.verb, r.args, code, errs)
		}
		if cmd.Name() == "list" && strings.HasSuffix(strings.TrimSpace(out), ": null\n}") {
			t.Errorf("%s --json: null where a list is:\n%s", r.verb, out)
		}
		if r.schema == "[]" {
			if err := json.Unmarshal([]byte(out), &[]ops.Device{}); err != nil {
				t.Errorf("%s --json: want an array: %v\n%s", r.verb, err, out)
			}
			continue
		}
		clitest.IsObject(t, r.verb, out, r.schema)
	}
	for _, r := range runs {
		delete(verbs, r.verb)
	}
	if len(verbs) > 0 {
		t.Errorf("not asked for JSON: %q", slices.Sorted(maps.Keys(verbs)))
	}
}

// TestServeJSON: the two daemons say as one object where they are, the server with
// the link and the token at its first start only.
func TestServeJSON(t *testing.T) {
	data := t.TempDir()
	t.Setenv("WEFT_STUN", "off")
	type said struct {
		Schema, Console, Listen, Token, URL, Name string
	}
	start := func(args ...string) (s said, stop func()) {
		out, w := io.Pipe()
		done := make(chan int, 1)
		go func() {
			done <- run(append(args, "--json", "--log", "error", "--listen", "127.0.0.1:0"), w, os.Stderr)
			w.Close()
		}()
		d := json.NewDecoder(out)
		if err := d.Decode(&s); err != nil {
			t.Fatal(err)
		}
		return s, func() {
			if err := d.Decode(new(any)); err != io.EOF {
				t.Errorf("%q prints more than one object: %v", args, err)
			}
			if code := <-done; code != 0 {
				t.Errorf("%q: exit %d", args, code)
			}
		}
	}
	// Both end by one signal, which is the process's.
	end := func(stops ...func()) {
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
		for _, stop := range stops {
			stop()
		}
	}
	serve := []string{"serve", "--data", data, "--console", "127.0.0.1:0"}
	first, stop := start(serve...)
	if first.Schema != "serve/1" || !strings.HasPrefix(first.Token, "weft1") || !strings.HasPrefix(first.URL, first.Console+"/welcome?link=") {
		t.Errorf("at the first start: %+v", first)
	}
	_, out, _ := verb(t, "keys", "create", "--relay", "--data", data, "--json")
	var k ops.KeyCreated
	if err := json.Unmarshal([]byte(out), &k); err != nil {
		t.Fatal(err)
	}
	relay, stopRelay := start("relay", "--data", t.TempDir(), "--token", k.Token, "--server", "https://"+first.Listen, "--url", "https://127.0.0.1:8444")
	if relay.Schema != "relay-run/1" || relay.Name == "" {
		t.Errorf("relay: %+v", relay)
	}
	end(stop, stopRelay)
	// After its end: one that hears that it was removed ends with an error.
	code, out, errs := verb(t, "relays", "remove", relay.Name, "--data", data, "--json")
	if code != 0 {
		t.Errorf("relays remove: exit %d: %s", code, errs)
	}
	clitest.IsObject(t, "relays remove", out, "relay/1")
	second, stop := start(serve...)
	if second.Schema != "serve/1" || second.Token != "" || second.URL != "" || second.Console == "" {
		t.Errorf("at the second start: %+v", second)
	}
	end(stop)
}

// startServer runs a server on a network that is there.
func startServer(t *testing.T, data string) {
	t.Helper()
	s, err := coord.NewServer(t.Context(), coord.ServerOptions{Options: ops.Options{Data: data, URLs: []string{"https://127.0.0.1:8443"}}, Listen: coord.Address{Addr: "127.0.0.1:0", Explicit: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// addDevices has devices join the network in data, on which no server runs.
func addDevices(t *testing.T, data string, names ...string) {
	t.Helper()
	s, err := ops.OpenService(t.Context(), ops.Options{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, name := range names {
		made, err := ops.Do(t.Context(), s, ops.Root(), ops.CreateKey{Tags: []string{"device"}})
		if err != nil {
			t.Fatal(err)
		}
		tok, err := cert.ParseToken(made.Token)
		if err != nil {
			t.Fatal(err)
		}
		key, err := cert.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		csr, err := cert.NewCSR(key)
		if err != nil {
			t.Fatal(err)
		}
		shown, err := cert.SelfSigned(key)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(shown.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(api.JoinRequest{Protocol: api.Protocol, Secret: tok.Secret, CSR: csr, Hostname: name})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, "/v1/join", bytes.NewReader(body))
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
		w := httptest.NewRecorder()
		if s.API().ServeHTTP(w, r); w.Code != http.StatusOK {
			t.Fatalf("join %s: %d %s", name, w.Code, w.Body)
		}
	}
}
