//go:build browser

// Package browsertest drives the console in a real Chromium over a service that runs in
// the test's process.
//
// It needs Node.js and Chromium (WEFT_CHROMIUM, else /usr/bin/chromium), and
// installs the pinned playwright-core beside itself. Screenshots go to
// WEFT_SHOTS if that is set. Run it with
//
//	go test -tags browser ./coord/console/browsertest
package browsertest

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/coord/console"
	"weft/coord/console/consoletest"
	"weft/coord/doctor"
	"weft/coord/install"
	"weft/overlay/cert"
	"weft/overlay/release"
)

func TestBrowser(t *testing.T) {
	if _, err := os.Stat("node_modules/playwright-core"); err != nil {
		npm := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
		if out, err := npm.CombinedOutput(); err != nil {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
	}
	if os.Getenv("STEPS") != "" {
		drive(t, "")
		return
	}
	// Most of what takes long computes in one thread of a browser: two groups, each with a
	// network and a browser of its own, use two cores.
	for _, group := range []string{"devices", "pages"} {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			drive(t, group)
		})
	}
}

// drive runs a group of the script's steps, or those that STEPS names, over a network of
// their own.
func drive(t *testing.T, group string) {
	network := consoletest.New(t, consoletest.Options{})
	c := console.New(console.Config{Service: network.Service, Heartbeat: time.Second, Style: true, Health: healthy, Offer: func() *install.Offer {
		return &install.Offer{Base: "https://weft.example:8443", Pin: "sha256//" + strings.Repeat("A", 43) + "=", Manifest: &release.Manifest{Files: []release.File{
			{Name: "weft-linux-arm64", Program: "weft", OS: "linux", Arch: "arm64", Kind: "binary"},
			{Name: "weft-darwin-arm64", Program: "weft", OS: "darwin", Arch: "arm64", Kind: "binary"},
			{Name: "weft-windows-amd64.exe", Program: "weft", OS: "windows", Arch: "amd64", Kind: "binary", SHA256: strings.Repeat("0a", 32)},
		}}}
	}})
	site := httptest.NewUnstartedServer(c)
	gate := &gated{Listener: site.Listener}
	site.Listener = gate
	site.Start()
	t.Cleanup(func() { c.Close(); site.Close() })
	// The same again at a name with TLS, whose certificate counts as trusted here: for
	// passkeys.
	named := console.New(console.Config{Service: network.Service, Heartbeat: time.Second, TrustedSite: func(*http.Request) bool { return true }})
	secure := httptest.NewTLSServer(named)
	t.Cleanup(func() { named.Close(); secure.Close() })
	control := httptest.NewServer(controls(network, c, gate))
	t.Cleanup(control.Close)

	node := exec.Command("node", "console.mjs")
	node.Env = append(os.Environ(), "GROUP="+group, "CONSOLE="+site.URL, "CONTROL="+control.URL, "SECURE="+secure.Listener.Addr().String())
	if os.Getenv("WEFT_CHROMIUM") == "" {
		node.Env = append(node.Env, "WEFT_CHROMIUM=/usr/bin/chromium")
	}
	node.Stdout, node.Stderr = os.Stdout, os.Stderr
	if err := node.Run(); err != nil {
		t.Fatal(err)
	}
}

// healthy is what a server says of itself.
func healthy(context.Context) console.Health {
	now := time.Now()
	return console.Health{
		Facts: doctor.Facts{
			Built: now.AddDate(0, -1, 0), Version: "0.1.0", Running: true, Inside: true, Data: "/var/lib/weft-server", Free: 300_000_000, Releases: "/var/lib/weft-server/releases", Release: "0.2.0",
			Ports: []doctor.Port{{Flag: "--listen", Addr: "[::]:8443"}, {Flag: "--console", Addr: "127.0.0.1:8080"}, {Flag: "--stun", Addr: "[::]:3478"}},
			Sites: []doctor.Site{{URL: "https://weft.example:8443", Own: true, Expires: now.AddDate(1, 0, 0)}},
		},
		Database: 123_456_789,
		Release: &release.Manifest{Version: "0.2.0", Commit: "0123456789abcdef0123456789abcdef01234567", Time: now.AddDate(0, 0, -3), Files: []release.File{
			{Name: "a", Program: "weft", OS: "linux", Arch: "amd64", Kind: "binary"}, {Name: "b", Program: "weft", OS: "linux", Arch: "amd64", Kind: "deb"}, {Name: "c", Program: "weft", OS: "darwin", Arch: "arm64", Kind: "binary"},
		}},
	}
}

// gated is a listener whose connections stand still while the gate is locked, as those of a
// server that hangs do: clients connect and send, and nobody answers.
type gated struct {
	net.Listener
	gate sync.RWMutex
}

type gatedConn struct {
	net.Conn
	gate *sync.RWMutex
}

func (l *gated) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &gatedConn{c, &l.gate}, nil
}

func (c *gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.gate.RLock()
	defer c.gate.RUnlock()
	return n, err
}

func (c *gatedConn) Write(b []byte) (int, error) {
	c.gate.RLock()
	defer c.gate.RUnlock()
	return c.Conn.Write(b)
}

// controls lets the script do what devices and the command line would do.
func controls(network *consoletest.Network, c *console.Console, gate *gated) http.Handler {
	var mu sync.Mutex // guards the following
	devices := map[string]*consoletest.Device{}
	add := func(list ...*consoletest.Device) {
		mu.Lock()
		defer mu.Unlock()
		for _, d := range list {
			devices[d.ID.String()] = d
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /link", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, network.Link("")) })
	mux.HandleFunc("POST /freeze", func(w http.ResponseWriter, r *http.Request) { gate.gate.Lock() })
	mux.HandleFunc("POST /thaw", func(w http.ResponseWriter, r *http.Request) { gate.gate.Unlock() })
	// A small household.
	mux.HandleFunc("POST /sample", func(w http.ResponseWriter, r *http.Request) {
		for _, d := range []struct {
			name, os string
			tags     []string
			online   bool
		}{
			{"kitchen-pi", "linux/arm64", []string{"device"}, true},
			{"garage-door", "linux/arm", []string{"device", "sensor"}, true},
			{"greenhouse", "linux/mipsle", []string{"device", "sensor"}, false},
			{"nas", "linux/amd64", []string{"device"}, true},
			{"anna-laptop", "darwin/arm64", nil, true},
			{"workbench", "windows/amd64", nil, false},
			{"weather-station", "linux/arm", []string{"device", "sensor"}, false},
		} {
			made := network.Add(d.name, d.os, d.tags...)
			if add(made); d.online {
				made.Connect()
			}
		}
	})
	mux.HandleFunc("POST /online", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		d := devices[r.FormValue("id")]
		mu.Unlock()
		if r.FormValue("on") == "true" {
			d.Connect()
		} else {
			d.Disconnect()
		}
	})
	mux.HandleFunc("POST /join", func(w http.ResponseWriter, r *http.Request) {
		d, err := network.Join(r.FormValue("token"), r.FormValue("name"), "linux/arm64")
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		add(d)
		fmt.Fprint(w, d.ID)
	})
	// A device fetches the install script, and then the program.
	mux.HandleFunc("POST /fetch", func(w http.ResponseWriter, r *http.Request) {
		c.Fetched(r.FormValue("key"), r.FormValue("program") == "true", netip.MustParseAddr("192.0.2.7"))
	})
	// A group with people in it.
	mux.HandleFunc("POST /family", func(w http.ResponseWriter, r *http.Request) {
		network.Group("family", "ben", "zoe-with-quite-a-long-name")
	})
	// A key was made some time ago.
	mux.HandleFunc("POST /age", func(w http.ResponseWriter, r *http.Request) {
		network.Change(func(db *sql.DB) {
			if _, err := db.Exec(`UPDATE keys SET created_at = created_at - $1, expires_at = expires_at - $1 WHERE key_id = $2`, r.FormValue("seconds"), r.FormValue("key")); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
	})
	mux.HandleFunc("POST /ask", func(w http.ResponseWriter, r *http.Request) {
		code, _ := network.Ask(r.FormValue("name"), r.FormValue("from"))
		fmt.Fprint(w, code)
	})
	mux.HandleFunc("POST /add", func(w http.ResponseWriter, r *http.Request) {
		d := network.Add(r.FormValue("name"), "linux/arm64", "device")
		add(d)
		fmt.Fprint(w, d.ID)
	})
	mux.HandleFunc("POST /drop-sessions", func(w http.ResponseWriter, r *http.Request) { network.EndSessions("admin") })
	// What two devices would report.
	mux.HandleFunc("POST /introductions", func(w http.ResponseWriter, r *http.Request) {
		network.Change(func(db *sql.DB) {
			for i, doubts := range []string{"", "unreachable name", "unknown", ""} {
				if _, err := db.Exec(`INSERT INTO introductions (network_id, hour, node_id, peer_id, inbound, first_at, last_at, count, node_name, peer_name, peer_user, paths, doubts, day)
					SELECT network_id, $1 / 3600, (SELECT node_id FROM nodes WHERE name = 'garage-door'), $2, $3, $1, $1, $4, 'garage-door', $5, 'admin', 'direct relay', $6, 1 FROM networks`,
					time.Now().Unix(), append(make([]byte, 15), byte(i)), i%2, i+1, fmt.Sprintf("caller-%d-with-a-name-that-is-rather-long-for-a-device", i), doubts); err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
				}
			}
		})
	})
	// A device with every string as hostile as it likes; answers with their ids. The
	// service would not take this, so it goes straight into the database.
	mux.HandleFunc("POST /hostile", func(w http.ResponseWriter, r *http.Request) {
		var texts, ids []string
		if err := json.NewDecoder(r.Body).Decode(&texts); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for i, s := range texts {
			d := network.Add("hostile", "linux/arm64", "hostile")
			ids = append(ids, d.ID.String())
			network.Presence(d.ID, uint64(i), i%2 == 0, time.Now(), netip.MustParseAddr("192.0.2.1"))
			user, tag := fmt.Sprint("bad", i), strings.ReplaceAll(s, ",", "")
			network.Change(func(db *sql.DB) {
				for _, c := range []struct {
					query string
					args  []any
				}{
					{`INSERT INTO users (network_id, user_id, name, owner, created_at) SELECT network_id, $1, $2, 0, 1 FROM networks`, []any{user, s}},
					{`INSERT INTO sessions (network_id, token_hash, user_id, created_at, seen_at, agent, addr) SELECT network_id, randomblob(32), user_id, $1, $1, $2, $2 FROM users WHERE name='admin'`, []any{time.Now().Unix(), s}},
					{`INSERT INTO identities (network_id, identity_id, issuer, subject, provider_id, user_id, admitted, name, mail, created_at, seen_at) SELECT network_id, $1, $1, $2, $2, CASE WHEN $3 THEN $1 END, 0, $2, $2, 1, 1 FROM networks`, []any{user, s, i%2 == 0}},
					{`INSERT INTO oidc_providers (network_id, provider_id, title, issuer, client_id, scopes, groups_claim, name_claim, admit_claim, admit_value, created_at) SELECT network_id, $1 || $2, $2, 'http://127.0.0.1:1', 'x', '', '', '', '', '', 1 FROM networks`, []any{user, s}},
					{`INSERT INTO passkeys (network_id, credential_id, passkey_id, user_id, name, rp_id, public_key, counter, flags, transports, aaguid, created_at, cloned_at) SELECT network_id, randomblob(32), $1, user_id, $2, $2, x'00', 0, 0, '', x'', 1, 1 FROM users WHERE name='admin'`, []any{user, s}},
					{`UPDATE nodes SET user_id=$1, name=$2, hostname=$2 || ' host', os=$2, software=$2, tags='hostile,' || $3 WHERE node_id=$4`, []any{user, s, tag, d.ID[:]}},
					{`INSERT INTO keys (network_id, key_id, secret_hash, user_id, note, tags, reusable, ephemeral, relay, created_at, expires_at)
						SELECT network_id, $1, randomblob(32), $1, $2, $3, 0, 0, 0, $4, $4 + 3600 FROM networks`, []any{user, s, tag, time.Now().Unix()}},
				} {
					if _, err := db.Exec(c.query, c.args...); err != nil {
						http.Error(w, err.Error(), http.StatusInternalServerError)
					}
				}
			})
		}
		json.NewEncoder(w).Encode(ids)
	})
	// A relay that runs alone, of another version.
	mux.HandleFunc("POST /relay", func(w http.ResponseWriter, r *http.Request) {
		relay := network.AddRelay(r.FormValue("name"))
		relay.Sync(1 << 20)
		fmt.Fprint(w, relay.ID)
	})
	mux.HandleFunc("POST /member", func(w http.ResponseWriter, r *http.Request) {
		network.Member(r.FormValue("name"))
		fmt.Fprint(w, network.Link(r.FormValue("name")))
	})
	// A fleet of n devices in four places, of which two thirds are online.
	mux.HandleFunc("POST /fleet", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.FormValue("n"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for p, place := range []string{"berlin", "lyon", "oslo", "porto"} {
			var names []string
			for i := p; i < n; i += 4 {
				names = append(names, fmt.Sprintf("%s-%04d", r.FormValue("name"), i))
			}
			made := network.AddMany(names, []string{"linux/arm64", "linux/amd64", "darwin/arm64", "windows/amd64"}[p], "device", "site-"+place)
			add(made...)
			for i, d := range made {
				network.Presence(d.ID, uint64(i), i%3 != 0, time.Now(), netip.MustParseAddr("192.0.2.1"))
			}
		}
	})
	mux.HandleFunc("POST /presence", func(w http.ResponseWriter, r *http.Request) {
		at := time.Now()
		if ago := r.FormValue("ago"); ago != "" {
			d, err := time.ParseDuration(ago)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			at = at.Add(-d)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, d := range devices {
			if d.Name == r.FormValue("name") {
				network.Presence(d.ID, uint64(time.Now().UnixNano()), r.FormValue("on") == "true", at, netip.MustParseAddr("192.0.2.1"))
			}
		}
	})
	// Devices come and go, as many a second as are asked for, until the time is over.
	mux.HandleFunc("POST /flap", func(w http.ResponseWriter, r *http.Request) {
		rate, err := strconv.Atoi(r.FormValue("rate"))
		length, err2 := time.ParseDuration(r.FormValue("for"))
		if err != nil || err2 != nil || rate < 1 {
			http.Error(w, "want rate and for", http.StatusBadRequest)
			return
		}
		mu.Lock()
		var ids []cert.NodeID
		for _, d := range devices {
			if strings.HasPrefix(d.Name, r.FormValue("name")) {
				ids = append(ids, d.ID)
			}
		}
		mu.Unlock()
		begin, done := time.Now(), 0
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for now := range tick.C {
			if now.Sub(begin) > length {
				break
			}
			for due := int(now.Sub(begin).Seconds() * float64(rate)); done < due; done++ {
				network.Presence(ids[done%len(ids)], uint64(1_000_000+done), (done/len(ids))%2 == 0, now, netip.MustParseAddr("192.0.2.1"))
			}
		}
		fmt.Fprint(w, done)
	})
	mux.HandleFunc("POST /many", func(w http.ResponseWriter, r *http.Request) {
		var names []string
		for i := range 5000 {
			names = append(names, fmt.Sprintf("unit-%04d", i))
		}
		made := network.AddMany(names, "linux/arm", "device")
		add(made...)
		for i, d := range made {
			network.Presence(d.ID, uint64(i), i%3 != 0, time.Now(), netip.MustParseAddr("192.0.2.1"))
		}
	})
	return mux
}
